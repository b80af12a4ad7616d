"""Write TrueType fonts in which every character is a different box, and a Chinese text."""

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib.tables._g_l_y_f import Glyph

CHINESE = "春天来了，万物复苏。\n小鸟在枝头歌唱：“天气真好！”\n公元353年，王羲之写下《兰亭集序》。\n"


def write_font(path: Path, characters: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {ord(character): f"u{ord(character):04X}" for character in dict.fromkeys(characters)}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    boxes = {".notdef": _box(300, 300)} | {
        name: _box(500 + code % 300, 400 + code % 400) for code, name in names.items()
    }
    builder.setupGlyf(boxes)
    builder.setupHorizontalMetrics(dict.fromkeys(boxes, (1000, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def write_chinese(root: Path) -> None:
    """Write chinese.txt and two fonts, of which only the second has every character of the text."""
    (root / "chinese.txt").write_text(CHINESE, encoding="utf-8")
    write_font(root / "fonts" / "a.ttf", "春天来了万物")
    write_font(root / "fonts" / "b.ttf", CHINESE.replace("\n", ""))


def _box(width: int, height: int) -> Glyph:
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, height), (100 + width, height), (100 + width, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()
