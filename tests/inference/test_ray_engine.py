"""What needs Ray is passed over where it is not installed: `make ray` installs it and runs this."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spectrim.audio.finding import Selection
from spectrim.errors import InvalidSetting, MissingExtra, SpectrimError
from spectrim.inference import ray_engine
from spectrim.inference.part_files import PartFolder, parts_of
from spectrim.inference.predict import predict_files
from spectrim.inference.ray_engine import ModelSettings, Shares, cluster, import_ray, predict_on_ray, shares_of
from spectrim.inference.results import FilePrediction

RATE = 16000
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    ("machines", "device", "model_cores", "shares"),
    [
        ([{"CPU": 2.0}], "auto", None, Shares(1, 1.5, 0, 2, 0.25)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], "cpu", None, Shares(2, 0.75, 0, 1, 0.25)),
        ([{"CPU": 16.0}, {"CPU": 64.0}, {"memory": 1.0}], "auto", None, Shares(20, 3.0, 0, 4, 0.25)),
        ([{"CPU": 16.0}, {"CPU": 6.0}], "auto", 8, Shares(2, 6.0, 0, 8, 0.25)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], "auto", None, Shares(2, 1, 1, None, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}], "cpu", None, Shares(4, 3.0, 0, 4, 0.25)),
    ],
)
def test_machines_are_divided(
    machines: list[dict[str, float]], device: str, model_cores: int | None, shares: Shares
) -> None:
    assert shares_of(machines, device, model_cores) == shares
    cores = sum(machine.get("CPU", 0) for machine in machines)
    assert shares.models * shares.model_cpus + shares.decoding_cpus <= cores


def test_what_no_machine_has_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="no machine of this Ray cluster has a GPU"):
        shares_of([{"CPU": 2.0}], "cuda", None)
    with pytest.raises(InvalidSetting, match="auto, cpu or cuda with --engine ray"):
        shares_of([{"CPU": 2.0, "GPU": 1.0}], "cuda:1", None)
    with pytest.raises(InvalidSetting, match="model_cores is 4; allowed: 1 to 2"):
        shares_of([{"CPU": 2.0}], "auto", 4)
    with pytest.raises(InvalidSetting, match="only with models on CPUs"):
        shares_of([{"CPU": 2.0, "GPU": 1.0}], "auto", 1)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--engine ray needs Ray; install it with: pip install 'spectrim\[ray\]'"):
        import_ray()


def test_of_an_error_of_ray_one_line_is_left() -> None:
    said = "ray::MapWorker()\n  File x\nspectrim.errors.CheckpointError: m: no such file\nRay is sorry\n"
    assert ray_engine._last_words(said) == "m: no such file"
    assert (ray_engine._last_words("a\n b \n"), ray_engine._last_words("")[:3]) == ("b", "Ray")


def test_a_client_is_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InvalidSetting, match="auto, or HOST:PORT, from a machine of the cluster"), cluster("ray://a:1"):
        pass


MACHINE = {"num_cpus": 1, "object_store_memory": 200 << 20}


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """Two machines of one core each, one process of Ray for each, on this one."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves them where other tests run
    import_ray()
    both = Cluster(initialize_head=True, head_node_args={**MACHINE, "include_dashboard": False})
    both.add_node(**MACHINE)
    ray.init(address=both.address, log_to_driver=False)
    yield both
    ray.shutdown()
    both.shutdown()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """640 names of eight clips of one second."""
    folder, generator = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for number in range(8):
        soundfile.write(folder / f"{number}.wav", 0.1 * generator.standard_normal(RATE), RATE)
    for number in range(8, 640):
        (folder / f"{number}.wav").symlink_to(folder / f"{number % 8}.wav")
    return [str(folder / f"{number}.wav") for number in range(640)]


def told(one: FilePrediction) -> tuple[object, ...]:
    timeline = [(window.start, window.end, window.scores.tobytes()) for window in one.timeline]
    return one.seconds, timeline, None if one.scores is None else one.scores.tobytes(), one.error, one.note


def tag(
    clips: list[str], most: int = 32, settings: ModelSettings | None = None, **options: Any
) -> Iterator[FilePrediction]:
    settings = ModelSettings("spectrim-mini", keep_rate=0.7) if settings is None else settings
    with cluster() as found:
        yield from predict_on_ray(parts_of(clips, most), settings, settings.open(), found, **options)


def processes(what: str) -> list[int]:
    """Ids of the processes of Ray whose name has ``what`` in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::") and what.encode() in name:
                found.append(int(entry.name))
    return found


def test_scores_are_those_of_one_process_to_the_bit(machines: Any, clips: list[str], tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, 0.1 * np.random.default_rng(1).standard_normal(60 * RATE), RATE)
    (tmp_path / "bad.wav").write_text("no sound")
    files = [*clips[:64], str(tmp_path / "bad.wav"), str(tmp_path / "none.wav"), f"file://{long}", *clips[64:70]]
    model = ModelSettings("spectrim-mini", keep_rate=0.7).open()
    wanted: dict[str, Any] = {}
    for part in parts_of(files, 32):
        wanted |= {one.path: told(one) for one in predict_files(part.files, model, workers=1)}
    found = {one.path: told(one) for one in tag(files)}
    assert found == wanted
    assert {path for path, one in found.items() if one[3] is not None} == set(files[64:66])


def broken_run(clips: list[str], folder: Path, after: int, breaking: Callable[[], object]) -> list[str]:
    """Tag into parts, break something after so many files, and give the files that the parts hold."""
    dataset = pytest.importorskip("pyarrow.dataset")
    output = PartFolder(folder, {}, top=1, resume=False, part_files=32)
    output.plan(Selection(clips))
    for number, prediction in enumerate(tag(clips)):
        output.write(prediction)
        if number == after:
            breaking()
    output.finish()
    return dataset.dataset(folder, format="parquet").to_table()["file"].to_pylist()


def test_nothing_is_lost_or_doubled_when_a_model_is_killed(machines: Any, clips: list[str], tmp_path: Path) -> None:
    def kill() -> None:
        victims = processes("Scorer")
        assert victims
        os.kill(victims[0], signal.SIGKILL)

    assert sorted(broken_run(clips, tmp_path / "out", 40, kill)) == sorted(clips)


def test_nothing_is_lost_or_doubled_when_a_machine_is_lost(machines: Any, clips: list[str], tmp_path: Path) -> None:
    other = next(node for node in machines.list_all_nodes() if node is not machines.head_node)
    found = broken_run(clips, tmp_path / "out", 40, lambda: machines.remove_node(other, allow_graceful=False))
    machines.add_node(**MACHINE)
    assert sorted(found) == sorted(clips)


def test_a_model_that_is_another_one_there_is_refused(machines: Any, clips: list[str]) -> None:
    with cluster() as found, pytest.raises(SpectrimError, match="spectrim-mini is another model on"):
        model = ModelSettings("spectrim-mini", keep_rate=0.5).open()
        list(predict_on_ray(parts_of(clips[:2]), ModelSettings("spectrim-mini"), model, found))


def test_the_command_is_interrupted_and_resumed(machines: Any, clips: list[str], tmp_path: Path) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    folder = Path(clips[0]).parent
    command = [sys.executable, "-m", "spectrim", "predict", str(folder), "-o", str(tmp_path / "out"), "--top", "1"]
    command += ["--engine", "ray", "--address", machines.address, "--part-files", "32", "--no-progress"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        while not list(tmp_path.glob("out/part-*")) and run.poll() is None:
            pass
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=240)
    assert (run.returncode, "whole parts of them are in" in said) == (130, True), said
    before = len(list(tmp_path.glob("out/part-*")))
    assert 0 < before < 20
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=500, check=False)
    assert (again.returncode, "640 files are in" in again.stderr) == (0, True), again.stderr
    assert sorted(dataset.dataset(tmp_path / "out", format="parquet").to_table()["file"].to_pylist()) == sorted(clips)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode, "is complete already" in done.stderr) == (0, True), done.stderr


def test_the_module_imports_without_ray() -> None:
    assert "ray" not in vars(ray_engine)
