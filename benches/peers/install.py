"""The peers' packages, and tiers: which instructions all engines may use. Used by `bench.py`.

Packages come from PyPI with pinned versions. Those of `SEPARATE` have a directory for each tier, which is put in front of
the environment's packages: llama.cpp is compiled for the tier. ik_llama.cpp is its wheel for AVX2 in all tiers: compiling
it takes half an hour on two cores.
"""
import dataclasses
import os
import pathlib
import subprocess
import sys

VERSIONS = {
    "llama.cpp": ("llama-cpp-python", "0.3.36"),
    "ik_llama.cpp": ("ik-llama-cpp-python", "0.1.5"),
    "OpenVINO": ("openvino-genai", "2026.4.1.0"),
    "CTranslate2": ("ctranslate2", "4.8.5"),
}
# What engines and the writers of models need besides: dependencies of what is installed with --no-deps.
SUPPORT = ["gguf==0.19.0", "numpy", "setuptools", "diskcache", "jinja2", "typing-extensions"]
SEPARATE = ["llama.cpp", "ik_llama.cpp"]


@dataclasses.dataclass(frozen=True)
class Tier:
    """Instructions that all engines may use."""

    # CLAWDBOT_ISA; None: what clawdbot chooses.
    kernels: str | None
    # Environment of the peers: oneDNN (OpenVINO), MKL and oneDNN (CTranslate2).
    environment: dict
    # CMAKE_ARGS of each of SEPARATE. None: the wheel from PyPI.
    cmake: dict


NATIVE = "-DGGML_NATIVE=ON"
WITHOUT_AMX = "-mno-amx-int8 -mno-amx-tile -mno-amx-bf16"
TIERS = {
    "best": Tier(None, {}, {"llama.cpp": NATIVE, "ik_llama.cpp": None}),
    "avx512-vnni": Tier(
        "avx512-vnni",
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "MKL_ENABLE_INSTRUCTIONS": "AVX512_E1", "CT2_FORCE_CPU_ISA": "AVX512"},
        {"llama.cpp": f"{NATIVE} '-DCMAKE_C_FLAGS={WITHOUT_AMX}' '-DCMAKE_CXX_FLAGS={WITHOUT_AMX}'",
         "ik_llama.cpp": None}),
    # OpenVINO 2026.4 cannot multiply int8 weights with this limit: it fails.
    "avx2": Tier(
        "avx2",
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "CT2_FORCE_CPU_ISA": "AVX2"},
        {"llama.cpp": "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON",
         "ik_llama.cpp": None}),
}


def pip(python: pathlib.Path, *arguments: str, cmake: str | None = None) -> None:
    variables = {**os.environ, **({"CMAKE_ARGS": cmake} if cmake else {})}
    subprocess.run([python, "-m", "pip", "install", "-q", *arguments], check=True, env=variables)


def environment(work: pathlib.Path, engines: list[str], say) -> pathlib.Path:
    """The Python of the peers' environment, with the packages of `engines` that are not compiled."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    wanted = SUPPORT + ["==".join(VERSIONS[name]) for name in engines if name in VERSIONS and name not in SEPARATE]
    stamp = work / "installed"
    present = stamp.read_text().split() if stamp.exists() else []
    missing = [package for package in wanted if package not in present]
    if missing:
        say(f"installing {' '.join(missing)}")
        pip(python, *missing)
        stamp.write_text(" ".join(present + missing))
    return python


def compiled(work: pathlib.Path, python: pathlib.Path, engine: str, tier: str, say) -> pathlib.Path | None:
    """The directory with the engine's package for a tier, which is compiled if it is missing; None: not one of SEPARATE."""
    if engine not in SEPARATE:
        return None
    package, flags = "==".join(VERSIONS[engine]), TIERS[tier].cmake[engine]
    # Tiers with the same flags share a build.
    first = next(name for name, other in TIERS.items() if other.cmake[engine] == flags)
    path = work / "builds" / f"{package}-{first}"
    if not path.exists():
        say(f"compiling {package} with {flags}: some minutes" if flags else f"installing {package}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        options = ["--no-deps", "--upgrade", "--target", str(partial)]
        # A wheel in pip's cache may have other flags.
        options += ["--no-cache-dir", "--no-binary", VERSIONS[engine][0]] if flags else []
        pip(python, *options, package, cmake=flags)
        partial.rename(path)
    return path
