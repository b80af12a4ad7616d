"""What all HTML pages have in common: the document with its style, texts that stay text, and embedded pictures."""

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from itertools import chain, zip_longest
from typing import Any

import cv2
import regex
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.picture import DELETION, INSERTION, SUBSTITUTION
from htr_lightning.text.codec import name
from htr_lightning.text.normalize import INVISIBLE

LONGEST = 400  # maximum number of characters shown of a text or message
CODED = regex.compile(rf"[\p{{Cc}}\p{{Cs}}\p{{Cn}}\p{{Zl}}\p{{Zp}}]|{INVISIBLE.pattern}", regex.V1)
QUALITY = 60  # of WebP pictures
MAX_SIDE = 16383  # of WebP pictures, in pixels

STYLE = f"""
:root {{ color-scheme: light dark; --ink: #222; --faint: #666; --rule: #ddd; --paper: #fff; --panel: #f6f6f4;
  --accent: #0b57a4; --alarm: #b3261e; --substitution: rgb{SUBSTITUTION}; --deletion: rgb{DELETION};
  --insertion: rgb{INSERTION}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e4e4e0; --faint: #a2a29c; --rule: #44443f; --paper: #191918;
  --panel: #242422; --accent: #8ab8ee; --alarm: #ff8a80; --substitution: #ff9f43; --deletion: #62b0e8;
  --insertion: #e29acb; }} }}
* {{ box-sizing: border-box; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5em; }}
h2 {{ font-size: 1.15em; margin: 2em 0 .5em; border-bottom: 1px solid var(--rule); }}
a {{ color: var(--accent); }}
:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
.wide {{ overflow-x: auto; max-width: 100%; }}
table {{ border-collapse: collapse; margin: .5em 0; overflow-wrap: normal; }}
th, td {{ padding: .2em .9em .2em 0; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; overflow-wrap: break-word; }}
thead {{ color: var(--faint); }}
.critical {{ color: var(--alarm); font-weight: 600; }} .small {{ color: var(--faint); font-size: 13px; }}
.sheet {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30em, 100%), 1fr)); gap: .8em 1.2em; }}
.line {{ border-left: 3px solid var(--rule); padding-left: .6em; min-width: 0; overflow: hidden; }}
.code {{ border: 1px solid var(--rule); border-radius: 3px; color: var(--faint); font-size: 11px; padding: 0 .2em; }}
.text {{ font-size: 16px; white-space: pre-wrap; }}
.line img, figure img {{ max-width: 100%; display: block; background: #eee; }} .none {{ color: var(--faint); }}
"""


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """Return a self-contained page that can neither load anything nor run any script but the given one.

    Args:
        title: title as text.
        body: content as HTML.
        style: CSS in addition to `STYLE`.
        script: JavaScript, run when the body has been read.
    """
    style = STYLE + style
    policy = f"default-src 'none'; img-src data:; style-src {_source(style)}; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src {_source(script)}"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(visible(title))}</title>'
        f"<style>{style}</style>"
    )
    end = f"<script>{script}</script>" if script else ""
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}{end}</body></html>\n"


def _source(content: str) -> str:
    """Return the Content Security Policy source of an inline style or script."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def visible(text: str) -> str:
    """Replace each character that has no picture with its code."""
    return CODED.sub(lambda found: name(found[0]), text)


def to_html(text: str, longest: int = LONGEST) -> str:
    """Return a text as HTML, cut to a number of characters, with the code of each character that has no picture."""
    shown, end = text[:longest], f" ... ({len(text):,} characters)" if len(text) > longest else ""
    coded = [f"<span class=code>{name(character)}</span>" for character in CODED.findall(shown)]
    return "".join(chain.from_iterable(zip_longest(map(escape, CODED.split(shown)), coded, fillvalue=""))) + end


def script_json(data: Any) -> str:
    """Return data as JSON that cannot end the script element that it is in."""
    return (
        json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )


def data_url(image: UInt8[ndarray, "H W"], height: int = MAX_SIDE, width: int = MAX_SIDE) -> str:
    """Return an image as a URL that contains it, scaled down if it exceeds a height or a width."""
    if (scale := min(height / image.shape[0], width / image.shape[1])) < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return f"data:image/webp;base64,{b64encode(data.tobytes()).decode()}"
