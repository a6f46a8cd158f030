"Hand settings.ini to setuptools, and pack the manifests and paper notebooks into the wheel."

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
PACKED = {
    "manifests": ("data_manifests", ("*.toml", "protocols/*")),
    "papers": ("nbs/papers", ("*.ipynb", "*.toml", "*.csv", "*.csv.gz", "evidence/*/*")),
}


def settings() -> dict:
    "The [DEFAULT] section of settings.ini."
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def lines(value: str) -> list[str]:
    "A multi-line setting as a list."
    return [line.strip() for line in value.splitlines() if line.strip()]


class BuildWithData(build_py):
    "Copies manifests and papers to the build's `deepfake_nb/_data/`: a wheel needs no checkout."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for target, (folder, patterns) in PACKED.items():
            destination = Path(self.build_lib) / "deepfake_nb" / "_data" / target
            destination.mkdir(parents=True, exist_ok=True)
            for pattern in patterns:
                for source in sorted((ROOT / folder).glob(pattern)):
                    target_file = destination / source.relative_to(ROOT / folder)
                    target_file.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target_file)


def readme(url: str) -> str:
    "README.md with its picture where a reader of the package finds it."
    path = ROOT / "README.md"
    return (
        path.read_text(encoding="utf-8").replace("](nbs/", f"]({url}/raw/main/nbs/")
        if path.exists()
        else ""
    )


cfg = settings()
setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme(cfg["git_url"].rstrip("/")) or cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    url=cfg["git_url"],
    keywords=cfg["keywords"],
    packages=find_packages(include=["deepfake_nb", "deepfake_nb.*"]),
    package_data={"deepfake_nb": ["py.typed", "_templates/*", "_weights/*", "_detector/*"]},
    python_requires=f">={cfg['min_python']},<3.14",
    install_requires=lines(cfg["requirements"]),
    extras_require={
        "notebooks": lines(cfg["notebooks_requirements"]),
        "dev": lines(cfg["dev_requirements"]),
        "cluster": lines(cfg["cluster_requirements"]),
        "gpu": lines(cfg["gpu_requirements"]),
        "heic": lines(cfg["heic_requirements"]),
        "onnx": lines(cfg["onnx_requirements"]),
        "all": [
            *lines(cfg["notebooks_requirements"]),
            *lines(cfg["cluster_requirements"]),
            *lines(cfg["heic_requirements"]),
            *lines(cfg["onnx_requirements"]),
        ],
    },
    entry_points={"console_scripts": lines(cfg["console_scripts"])},
    cmdclass={"build_py": BuildWithData},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
