"""Five deepfake-detection reports, re-run as living notebooks, and the library that they define.

The names below are what one types first; everything else is in the packages `core`, `synthetic`,
`data`, `evaluation`, `faces`, `forensics`, `models`, `training`, `explain`, `detectors`, `studies`,
`reporting` and `runs`. Nothing is imported before it is used.
"""

__version__ = "0.1.0"

import os as _os
import shutil as _shutil
from importlib import import_module as _import_module

# TensorFlow's start-up messages are muted; its errors too if there is no GPU to be missed.
_wants_gpu = _os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
_level = "1" if _wants_gpu and _shutil.which("nvidia-smi") else "3"
_os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _level)

_FRONT_DOOR = {
    "load_samples": "data.datasets",
    "split_samples": "data.splits",
    "register_dataset": "data.custom",
    "extract_faces": "faces.dataset",
    "azimuthal_spectrum": "forensics.spectrum",
    "ImageBatches": "training.loaders",
    "build_backbone": "models.backbones",
    "build_classifier": "models.classifiers",
    "load_model": "models.classifiers",
    "fit": "training.fit",
    "fit_frozen": "training.frozen",
    "predict_scores": "training.fit",
    "bootstrap_interval": "evaluation.intervals",
    "occlusion_sensitivity": "explain.occlusion",
    "health_check": "studies.audit",
    "train_detector": "detectors.training",
    "load_detector": "detectors.storage",
    "run_paper": "runs.execute",
}
__all__ = ["__version__", *_FRONT_DOOR]


def __getattr__(name: str):
    if name not in _FRONT_DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from contextlib import nullcontext

    from .core.errors import explain_missing_package

    with explain_missing_package():
        from .core.output import without_chatter  # some messages come at any level

        wanted = _os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
        with nullcontext() if wanted else without_chatter():
            value = getattr(_import_module(f"{__name__}.{_FRONT_DOOR[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
