"""The version of this package, and the versions of the packages that its results depend on."""

import platform
from importlib import metadata

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and all packages that results depend on."""
    packages = (
        "torch",
        "lightning",
        "torchmetrics",
        "hydra-core",
        "editdistance",
        "numpy",
        "onnxruntime",
        "opencv-python-headless",
        "transformers",
    )
    found = {p: metadata.version(p) for p in packages if any(metadata.distributions(name=p))}
    return {"htr_lightning": __version__, "python": platform.python_version()} | found
