"""Compiled code: its room in memory, its threads at the end of a program, its folder on disk."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_moe.ground import compilation, compile_cache, threads
from bayes_moe.ground.data import float64

ROOT = Path(__file__).parents[2]


def polynomial(x):
    """Stands for a model: any short program."""
    return jnp.cumsum(jnp.sin(x) * x**2)


def maps():
    """Count what the process maps."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


# Room in memory ----------------------------------------------------------------------------------------------------

needs_maps = pytest.mark.skipif(not compilation.MAPS.exists(), reason="the system does not count maps")
WAYS = {
    "compiled": lambda x: compilation.compiled(polynomial, x)(x),
    "JAX's own, in a public function": float64(lambda x: jax.jit(polynomial)(x)),
}


@needs_maps
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_many_sizes_stay_within_the_limit(way, monkeypatch):
    compilation.forget()
    before, peak = maps(), 0
    monkeypatch.setattr(compilation, "_most_maps", lambda: (before + 30) / compilation.SHARE)
    for size in range(1, 13):
        compilation._Room.due = 0.0  # as if time had passed
        x = jnp.asarray(np.linspace(0.0, 1.0, size), dtype=float)
        np.testing.assert_allclose(way(x)[-1], np.sum(np.sin(x) * np.square(x)), rtol=1e-5, atol=1e-6)
        peak = max(peak, maps() - before)
    assert peak < 70  # twelve sizes kept map over a hundred


@needs_maps
def test_nothing_is_dropped_while_there_is_room():
    x = jnp.ones(3)
    program = compilation.compiled(polynomial, x)
    compilation.make_room(look=True)
    assert compilation.compiled(polynomial, x) is program


def test_counting_again_waits_in_proportion(monkeypatch):
    counted = []
    monkeypatch.setattr(compilation, "_maps", lambda: counted.append(time.sleep(0.01)) or 0)
    compilation._Room.due = 0.0
    for _ in range(100):
        compilation.make_room()
    assert len(counted) == 1
    assert compilation._Room.due - time.monotonic() > 0.3
    compilation._Room.due = 0.0


def test_who_uses_an_executable_keeps_it(monkeypatch):
    x, stop, wrong, calls = jnp.arange(5.0), threading.Event(), [], []
    expected = np.asarray(polynomial(x))

    def use(program):
        while not stop.is_set():
            calls.append(1)
            if not np.array_equal(program(x), expected):
                wrong.append(1)

    programs = [compilation.compiled(polynomial, x), compilation.jitted(polynomial)]
    expected = np.asarray(programs[0](x))
    users = [threading.Thread(target=use, args=(program,)) for program in programs]
    for user in users:
        user.start()
    try:
        for _ in range(3):
            compilation.forget()
    finally:
        stop.set()
        for user in users:
            user.join()
    assert calls
    assert not wrong


def test_what_is_being_compiled_is_not_dropped():
    key = ("in the making",)
    compilation._TABLE[key] = compilation.Future()
    try:
        compilation.forget()
        assert key in compilation._TABLE
    finally:
        del compilation._TABLE[key]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, threads.Cancelled])
def test_an_interrupt_is_for_the_thread_that_it_met(error, monkeypatch):
    begun, go_on, real = threading.Event(), threading.Event(), compilation._compile

    def interrupted(*args):
        monkeypatch.setattr(compilation, "_compile", real)
        begun.set()
        go_on.wait(30)
        raise error

    def first():
        with pytest.raises(error):
            compilation.compiled(lambda_, jnp.ones(2))
        met.append(error)

    def lambda_(x):
        return x + 1.0

    met = []
    monkeypatch.setattr(compilation, "_compile", interrupted)
    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(30)
    threading.Timer(0.2, go_on.set).start()
    np.testing.assert_array_equal(compilation.compiled(lambda_, jnp.ones(2))(jnp.ones(2)), [2.0, 2.0])
    thread.join()
    assert met == [error]


# The end of a program ----------------------------------------------------------------------------------------------

SLOW = """
import os, signal, threading, jax, jax.numpy as jnp
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
from bayes_moe import compilation, threads
def slow(x):
    for i in range(100):
        x = jnp.sin(x @ x) + i
    return x
begun = threading.Event()
heed = threads.heed
threads.heed = lambda: (begun.set(), heed())
shapes = [jax.ShapeDtypeStruct((n, n), "float32") for n in (20, 30)]
compilation.ahead(*((slow, shape) for shape in shapes))
begun.wait(60)
"""
ENDS = {
    "an error": ("raise ValueError('my own')", 1, "ValueError: my own"),
    "Ctrl-C": (f"os.kill(os.getpid(), {int(signal.SIGINT)}); threading.Event().wait(9)", -2, "KeyboardInterrupt"),
}


@pytest.mark.parametrize(("end", "status", "words"), ENDS.values(), ids=ENDS)
def test_a_program_that_ends_while_threads_compile_ends_as_it_should(end, status, words):
    env = os.environ | {"BAYES_MOE_CACHE": "off", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "-c", SLOW + end]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (status, words)


# On disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a folder that compiled code is kept in, however fast it was compiled."""
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "kept"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    compile_cache._folder.cache_clear()
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0.0)
    yield tmp_path / "kept"
    jax.config.update(name, before)
    compile_cache._folder.cache_clear()


def settings():
    """Return every setting of JAX."""
    return dict(jax.config.values)


def files(folder):
    """Names of everything in a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_fit_keeps_its_programs_and_leaves_no_trace(cache, tmp_path):
    @float64
    def fit(x):
        seen.append(jax.config.jax_compilation_cache_dir)
        compilation.compiled(polynomial, x)(x)
        seen.append(jax.config.jax_compilation_cache_dir)

    seen, before = [], settings()
    fit(np.ones(17))
    assert seen == [None, str(next(cache.iterdir()))]
    assert settings() == before
    kept = files(cache)
    assert any("polynomial" in name for name in kept)
    jax.jit(lambda x: x * 3.0 + 1.0)(jnp.ones(23))  # the user's own
    assert files(cache) == kept
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "users"))
    try:
        jax.jit(lambda x: x * 3.0 - 1.0)(jnp.ones(23))
        fit(np.ones(19))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "users")
        assert len(files(tmp_path / "users")) >= 2
        assert files(cache) == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.compilation_cache.reset_cache()


def test_fits_side_by_side_end_the_setting_with_the_last(cache):
    with threads.one_blas_thread():
        with threads.one_blas_thread():
            compilation.jitted(polynomial)(jnp.ones(5))
        assert jax.config.jax_compilation_cache_dir is not None
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("word", ["off", "OFF", " Off ", "no", "none", "0", "False"])
def test_off_means_off(word, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(compile_cache.VARIABLE, word)
    assert compile_cache.folder() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["", "on", "ON", "1", "yes"])
def test_on_and_nothing_mean_the_usual_place(word, monkeypatch, tmp_path):
    monkeypatch.setenv(compile_cache.VARIABLE, word)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its standard
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_cache.folder().parent == tmp_path / ".cache" / "bayes-moe"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compile_cache.folder().parent == tmp_path / "xdg" / "bayes-moe"


def test_a_tilde_is_home_and_what_is_made_is_ones_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(compile_cache.VARIABLE, "~/deep/down")
    before = os.umask(0)
    try:
        made = compile_cache.folder()
    finally:
        os.umask(before)
    assert made.parent == tmp_path / "deep" / "down"
    assert [each.stat().st_mode & 0o777 for each in (made, made.parent, made.parent.parent)] == [0o700] * 3


def test_nobody_has_no_cache_and_can_fit(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(compile_cache.VARIABLE, raising=False)

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    compile_cache._folder.cache_clear()
    assert compile_cache.folder() is None
    with threads.one_blas_thread():
        assert compilation.jitted(polynomial)(jnp.ones(6)).shape == (6,)


def opened(path, mode=0o777):
    """Make a folder with these permissions."""
    path.mkdir()
    path.chmod(mode)
    return path


def of_another(path):
    """Make a folder that is another user's."""
    path.mkdir()
    os.chown(path, 12345, 12345)
    return path


def planted(path):
    """Make a folder that holds a file that others can write to."""
    path.mkdir()
    (path / "code").write_text("")
    (path / "code").chmod(0o666)
    return path


def led(path, to):
    """Make a link."""
    path.symlink_to(to)
    return path


root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="giving files away needs root")
DANGERS = {
    "open": lambda t: opened(t / "open"),
    "open, and sticky": lambda t: opened(t / "open", 0o1777),
    "open to another group": lambda t: opened(t / "open", 0o775),
    "in an open folder": lambda t: opened(opened(t / "open") / "closed", 0o700),
    "behind a link into an open folder": lambda t: led(t / "link", opened(opened(t / "open") / "closed", 0o700)),
    "a link in an open folder": lambda t: led(opened(t / "open") / "link", opened(t / "closed", 0o700)),
    "with a file that others write": lambda t: planted(t / "planted"),
    "another's": lambda t: of_another(t / "theirs"),
    "in another's": lambda t: opened(of_another(t / "theirs") / "mine", 0o700),
    "behind a link into another's": lambda t: led(t / "link", opened(of_another(t / "theirs") / "mine", 0o700)),
}
MARKED = [pytest.param(make, id=name, marks=[root] if "another's" in name else []) for name, make in DANGERS.items()]


@pytest.mark.parametrize("make", MARKED)
def test_a_folder_in_which_others_have_a_hand_is_refused(make, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "_private", lambda group: False)
    path = make(tmp_path)
    assert compile_cache.danger(path, final=True)
    name = f"xla-{compile_cache.jaxlib.__version__}-{compile_cache._processor()}"
    monkeypatch.setenv(compile_cache.VARIABLE, str(path))
    if not path.name.startswith(("planted", "open")):  # within, a folder of one's own is safe in a sticky one
        compile_cache._folder.cache_clear()
        with pytest.warns(UserWarning, match=f"runs as yours and .*{compile_cache.VARIABLE}"):
            assert compile_cache.folder() is None
        assert not (path / name).exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda t: opened(t / "closed", 0o700),
        lambda t: opened(t / "read", 0o755),
        lambda t: opened(opened(t / "sticky", 0o1777) / "closed", 0o700),
        lambda t: led(t / "link", opened(t / "closed", 0o700)),
    ],
)
def test_a_folder_of_ones_own_is_taken(make, tmp_path):
    assert compile_cache.danger(make(tmp_path), final=True) == ""
