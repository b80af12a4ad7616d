"""Find the IAM forms and lines that belong to an Aachen, official or custom split."""

from collections import Counter
from glob import glob
from hashlib import sha256
from pathlib import Path

from htr_lightning.data.download import text_file
from htr_lightning.data.reader.iam_files import form_of, named, read_text
from htr_lightning.data.split import read_splits
from htr_lightning.errors import InputError

AACHEN_FORMS = {"train": 747, "val": 116, "test": 336}
AACHEN_LINES = {"train": 6482, "val": 976, "test": 2915}
# Lists of line ids at a pinned commit. Each digest is computed from the sorted form ids in the list, one per row.
AACHEN_URL = (
    "https://raw.githubusercontent.com/IntuitionMachines/OrigamiNet/9e82724cc2998d583a976b1ca781f7aeba73c38c/iam/"
)
AACHEN_DIGESTS = {
    "train": "4eb7863d325c4ed624927384c396f7322e64d4c816169f7bdc160bc21dfe11a1",
    "val": "75abe797e51d606c0ee288a55ad1a76b02ee5dd93d7e3a724468a67af4c8ec41",
    "test": "03bfd39708f3d44059de2935de2453a94d7f174caaca72b367f5366f6f7ab2c7",
}
OFFICIAL = {  # number of lines in each list
    "train": {"trainset.txt": 6161},
    "val": {"validationset1.txt": 900, "validationset2.txt": 940},
    "test": {"testset.txt": 1861},
}
NAMES = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}


def split_ids(root: Path, split: str, splits: str, lists: str | None, download: bool) -> set[str]:
    """Return the form or line ids in a split. See `Iam` for the arguments.

    Raises:
        InputError: if a list is missing or invalid, or does not have the expected length.
    """
    if splits == "aachen":
        return _aachen(root, split, lists, download)
    if splits == "official":
        return {id for name, count in OFFICIAL[split].items() for id in _official(root, lists, name, count)}
    return _own(_named(root, splits), split)


def _aachen(root: Path, split: str, lists: str | None, download: bool) -> set[str]:
    names = [form.format(name) for form in ("{}.uttlist", "aachen_{}.txt", "{}.ln") for name in NAMES[split]]
    path = _find(root, lists, names)
    downloaded = path is None
    if path is None:
        if lists is not None or not download:
            raise InputError(
                f"{lists or root}: contains none of {', '.join(names)}; set data.reader.lists to the folder containing "
                "the Aachen lists, or data.reader.download=true"
            )
        path = text_file(f"{AACHEN_URL}{split}.ln", f"iam_{split}.ln", "and set data.reader.lists to its folder")
    forms = {form_of(id) for id in _read_ids(path)}
    if len(forms) != AACHEN_FORMS[split]:
        raise InputError(
            f"{path}: expected {AACHEN_FORMS[split]} forms in the Aachen split '{split}', got {len(forms)}; use the "
            "complete list, or set data.reader.splits=FOLDER for custom splits"
        )
    found = sha256("".join(f"{form}\n" for form in sorted(forms)).encode()).hexdigest()
    if downloaded and found != AACHEN_DIGESTS[split]:
        raise InputError(f"{path}: not the Aachen list (SHA-256 {found}); delete it, or set data.reader.lists=FOLDER")
    return forms


def _official(root: Path, lists: str | None, name: str, count: int) -> set[str]:
    path = _find(root, lists, [name])
    if path is None:
        raise InputError(
            f"{lists or root}: contains no {name}; unpack largeWriterIndependentTextLineRecognitionTask.zip below "
            "data.root, or set data.reader.lists=FOLDER"
        )
    ids = _read_ids(path)
    if len(ids) != count:
        raise InputError(
            f"{path}: expected {count} lines, got {len(ids)}; use the original file from the official task"
        )
    return ids


def _own(path: Path, split: str) -> set[str]:
    if path.is_file():
        ids = {id for id, its in read_splits(path.parent, path.name).items() if its == split}
        if not ids:
            raise InputError(f"{path}: no ids in split '{split}'; add some, or change data.reader.splits")
        return ids
    if not path.is_dir():
        raise InputError(
            f"data.reader.splits={path}: no such folder or table; expected aachen, official, or a path to custom splits"
        )
    names = [name + ending for name in NAMES[split] for ending in (".txt", ".uttlist")]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise InputError(f"{path}: contains none of {', '.join(names)}; create one with one form or line id per row")
    return _read_ids(found)


def _find(root: Path, lists: str | None, names: list[str]) -> Path | None:
    """Find a list in the given folder or, if none is given, in the root and its subfolders."""
    below = sorted(root / name for name in glob("*/", root_dir=root))
    folders = [root, *below] if lists is None else [_named(root, lists)]
    return next((path for folder in folders for name in names if (path := folder / name).is_file()), None)


def _named(root: Path, name: str) -> Path:
    """Return a path relative to the root if it exists there, or else as given."""
    below = root / str(name)
    return below if below.exists() else Path(str(name))


def _read_ids(path: Path) -> set[str]:
    """Read form or line ids, one per row.

    Raises:
        InputError: if there are no ids, an id is duplicated, or a row is not an id.
    """
    ids = [row.strip().removesuffix(".png") for row in read_text(path).splitlines() if row.strip()]
    if not ids:
        raise InputError(f"{path}: contains no ids; write one form or line id per row")
    if odd := [id[:40] for id in ids if not 2 <= len(id.split("-")) <= 4 or len(id.split()) > 1]:
        raise InputError(f"{path}: invalid ids {named(odd)}; expected form or line ids such as a01-000u-00")
    if twice := [id for id, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{path}: duplicate ids {named(twice)}; list each id once")
    return set(ids)
