"""The driver on the emulated board: the simulator's integers, and a usable board after every fault."""

from __future__ import annotations

import _thread
import gc
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from codegen.build import Build
from common.contract import DONE
from common.errors import InputError
from emulation import Expected, FaultyKernel, check, faulty_board
from host import Accelerator, AcceleratorError, Result
from host import call as host_call
from host.emulated import EmulatedBoard, EmulatedBuffer
from pysim.design import Design
from pysim.model import Model
from pysim.reference import apply_head

pytestmark = pytest.mark.compile

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def design(built: Build) -> Design:
    return edgemoe.load_design(built.folder / "design")


class TestResults:
    def test_every_image_and_task_switching(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        assert accelerator.tasks == ("semseg", "depth") == tuple(expected)
        for index, image in enumerate(images):
            for task, tokens in expected.items():
                assert_array_equal(accelerator.run(image, task).integers, tokens[index])

    def test_switching_the_task_writes_one_register(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels
    ) -> None:
        accelerator.run(images[0], "semseg")
        before = len(kernel.writes), accelerator.argument_writes
        accelerator.run(images[1], "depth")
        task = kernel.kernel.registers["task_r"]
        status = kernel.kernel.registers["IP_ISR"]
        written = [write for write in kernel.writes[before[0] :] if write[0] != status]
        assert written == [(task, 1), (0, 1)]
        assert accelerator.argument_writes == before[1] + 1
        accelerator.run(images[1], "depth")
        assert accelerator.argument_writes == before[1] + 1

    @pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
    def test_batches(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected, count: int
    ) -> None:
        before = kernel.calls
        results = accelerator.run_batch(images[:count], "depth")
        check(results, expected["depth"][:count])
        assert kernel.calls - before == -(-count // 3)
        assert [result.images for result in results] == ([3] * (count // 3 * 3) + [count % 3] * (count % 3))

    def test_a_list_of_images_is_a_batch(
        self, accelerator: Accelerator, images: Pixels, expected: Expected, folders: Path
    ) -> None:
        files = [folders / "images" / "00.png", images[1], str(folders / "images" / "02.png")]
        check(accelerator.run_batch(files, 0), expected["semseg"][:3])

    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_streams(self, accelerator: Accelerator, images: Pixels, expected: Expected, count: int) -> None:
        check(list(accelerator.stream(iter(images[:count]), "semseg")), expected["semseg"][:count])

    def test_several_tasks_in_one_stream(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        results = list(accelerator.stream(images[:4], ["depth", "semseg"]))
        assert [result.task for result in results] == ["depth", "semseg"] * 4
        check(results[0::2], expected["depth"][:4])
        check(results[1::2], expected["semseg"][:4])

    def test_a_stream_prepares_the_next_image_while_the_kernel_works(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels
    ) -> None:
        order = []

        def source() -> Iterator[Pixels]:
            for index, image in enumerate(images[:3]):
                order.append(f"read {index}")
                if index:
                    assert accelerator._caller.running
                yield image

        for index, _ in enumerate(accelerator.stream(source())):
            order.append(f"result {index}")
        assert order == ["read 0", "read 1", "result 0", "read 2", "result 1", "result 2"]

    def test_cycles_are_those_of_the_hardware(
        self, accelerator: Accelerator, board: EmulatedBoard, kernel: FaultyKernel, images: Pixels
    ) -> None:
        assert accelerator.run(images[0]).cycles is accelerator.run(images[0]).latency_ms is None
        board.compiled = False
        result = accelerator.run(images[0])
        registers = kernel.kernel.registers
        low, high = (kernel.read(registers[f"cycles_{word}"]) for word in (1, 2))
        assert result.cycles == low | high << 32
        assert accelerator.clock_mhz == 300
        assert result.cycles is not None
        assert result.latency_ms == pytest.approx(result.cycles / 300e3)
        # The emulated clock is a thread: on a busy computer it may miss many calls, which are short.
        assert any(accelerator.run(image).cycles for _ in range(100) for image in images)

    def test_decoded_as_the_model_does(
        self, accelerator: Accelerator, design: Design, micro: Model, images: Pixels, expected: Expected
    ) -> None:
        for task, channels in (("semseg", 7), ("depth", 1)):
            result = accelerator.run(images[3], task)
            tokens = design.residual.to_float(expected[task][3:4])
            assert_array_equal(result.tokens, tokens[0])
            output = apply_head(micro, task, tokens)
            assert output is not None and result.output is not None
            assert_array_equal(result.output, output[0].reshape(2, 4, channels))
            decoded = output[0].argmax(-1) if channels > 1 else output[0, :, 0]
            assert_array_equal(result.map, decoded.reshape(2, 4))
            with pytest.raises(InputError, match="token-linear, not cls-linear"):
                assert result.label

    def test_results_stay_when_the_next_call_is_made(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        kept = [accelerator.run(image) for image in images[:3]]
        check(kept, expected["semseg"][:3])

    def test_pointers_use_both_words(self, accelerator: Accelerator, kernel: FaultyKernel) -> None:
        accelerator.run(np.zeros((3, 8, 16), np.uint8))
        registers = kernel.kernel.registers
        high = {
            name: value for offset, value in kernel.writes for name in registers if registers[name] == offset
        }
        for pointer in ("image", "output_r", "weights_0", "weights_1"):
            assert high[f"{pointer}_2"] == 8

    def test_pictures_are_prepared_as_the_simulator_does(
        self, accelerator: Accelerator, design: Design, tmp_path: Path
    ) -> None:
        pixels = np.random.default_rng(3).integers(0, 256, (37, 50, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        Image.fromarray(pixels, "RGBA").save(tmp_path / "photo.png")
        image = edgemoe.load_images([tmp_path / "photo.png"], design, resize="own")
        simulated = edgemoe.simulate(design, image, "depth").integers
        assert_array_equal(accelerator.run(tmp_path / "photo.png", "depth").integers, simulated[0])

    def test_polling_without_an_interrupt(
        self, built: Build, board: EmulatedBoard, images: Pixels, expected: Expected
    ) -> None:
        import dataclasses

        board.kernel = dataclasses.replace(board.kernel, interrupt=False)
        with Accelerator(built.folder, board=board) as opened:
            check([opened.run(images[0])], expected["semseg"][:1])
        assert not board.hardware.interrupt.is_set()

    def test_a_lost_interrupt_costs_only_time(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.write(kernel.kernel.registers["GIER"], 0)
        check([accelerator.run(images[0])], expected["semseg"][:1])


def test_two_boards_side_by_side(built: Build, library: Path, images: Pixels, expected: Expected) -> None:
    """Two boards of one process share the library, whose on-chip memories are only there once."""
    boards = [faulty_board(built.host, library)[0] for _ in range(2)]
    results: dict[int, list[Result]] = {}

    def work(number: int, board: EmulatedBoard) -> None:
        with Accelerator(built.folder, board=board) as accelerator:
            results[number] = [accelerator.run(image, number) for image in images]

    threads = [threading.Thread(target=work, args=arguments) for arguments in enumerate(boards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, tokens in enumerate(expected.values()):
        check(results[number], tokens)


class TestCache:
    """The emulated cache shows what `flush` and `invalidate` are for."""

    @pytest.mark.parametrize("method", ["flush", "invalidate"])
    def test_without_it_results_are_wrong(
        self,
        built: Build,
        board: EmulatedBoard,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        monkeypatch.setattr(EmulatedBuffer, method, lambda self: None)
        with Accelerator(built.folder, board=board) as opened:
            result = opened.run(images[0])
        assert (result.integers != expected["semseg"][0]).any()

    def test_zeros_left_in_the_cache_go_over_the_results(
        self,
        built: Build,
        board: EmulatedBoard,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        flush = EmulatedBuffer.flush

        def only_data(self: EmulatedBuffer) -> None:
            if self.array.any():
                flush(self)

        monkeypatch.setattr(EmulatedBuffer, "flush", only_data)
        with Accelerator(built.folder, board=board) as opened:
            result = opened.run(images[0])
        assert not result.integers.any() and expected["semseg"][0].any()

    def test_only_lines_that_were_changed_are_evicted(self, board: EmulatedBoard) -> None:
        buffer = board.memory.allocate(5 * 64 + 8)
        buffer.flush()
        buffer.array[70] = 1
        buffer.array[-1] = 2
        buffer.dram[:] = 9
        buffer.evict()
        expected = np.full(5 * 64 + 8, 9)
        expected[64:128] = buffer.array[64:128]
        expected[320:] = buffer.array[320:]
        assert_array_equal(buffer.dram, expected)
        buffer.dram[:] = 9
        buffer.evict()
        assert_array_equal(buffer.dram, 9, "what was written back is not written again")
        buffer.free()


class TestRefusedCalls:
    """The kernel says how much it holds, and refuses what is more; the driver believes it and nobody else."""

    @pytest.mark.parametrize(
        ("batch", "task", "status"),
        [
            (0, 0, 0),
            (4, 0, 1),
            (-1, 0, 1),
            (2**31 - 1, 1, 1),
            (-(2**31), 0, 1),
            (1, 2, 2),
            (3, -1, 2),
            (0, 7, 2),
        ],
    )
    def test_by_the_kernel(
        self,
        accelerator: Accelerator,
        board: EmulatedBoard,
        kernel: FaultyKernel,
        images: Pixels,
        expected: Expected,
        batch: int,
        task: int,
        status: int,
    ) -> None:
        check([accelerator.run(images[0], "depth")], expected["depth"][:1])
        before = {address: buffer.dram.copy() for address, buffer in board.memory.buffers.items()}
        found = kernel.call(batch=batch, task=task)
        assert found == {"cycles_1": 0, "cycles_2": 0, "max_batch": 3, "status": status}
        for address, buffer in board.memory.buffers.items():
            assert_array_equal(buffer.dram, before[address])
        accelerator._caller.registers.forget()
        check(accelerator.run_batch(images[:4], "semseg"), expected["semseg"][:4])

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [({"batch": 40}, "it takes 0 to 3 images, not 40"), ({"batch": 1, "task": 2}, "it has no task 2")],
    )
    def test_are_one_error(
        self,
        accelerator: Accelerator,
        images: Pixels,
        expected: Expected,
        arguments: dict[str, int],
        reason: str,
    ) -> None:
        accelerator.run(images[0])
        accelerator._caller.start(arguments)
        with pytest.raises(AcceleratorError, match=f"refused the call: {reason}"):
            accelerator._caller.wait()
        check([accelerator.run(images[0], "depth")], expected["depth"][:1])

    def test_unknown_status(self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels) -> None:
        kernel.mode = "status"
        with pytest.raises(AcceleratorError, match="status = 7, which this driver does not know"):
            accelerator.run(images[0])

    @pytest.mark.parametrize("most", [1, 2, 4, 40])
    def test_limit_of_the_manifest_is_not_the_kernels(
        self, built: Build, board: EmulatedBoard, tmp_path: Path, most: int
    ) -> None:
        shutil.copytree(built.host, tmp_path / "host")
        path = tmp_path / "host/manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"max_batch": most}))
        with pytest.raises(
            AcceleratorError, match=rf"takes 3 image\(s\).* says max_batch = {most}"
        ) as caught:
            Accelerator(tmp_path / "host", board=board)
        assert "copy the whole host folder" in caught.value.hint
        assert not board.memory.buffers, "refused before the first buffer"

    def test_limit_is_the_hardwares(self, accelerator: Accelerator) -> None:
        assert accelerator.max_batch == 3


class TestFaults:
    """Each fault is one clear error; afterwards the same board works, and nothing is left allocated."""

    def works(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = ""
        check([accelerator.run(images[1], "depth")], expected["depth"][1:2])
        check(list(accelerator.stream(images[:3], "semseg")), expected["semseg"][:3])

    def test_never_done(
        self,
        built: Build,
        board: EmulatedBoard,
        kernel: FaultyKernel,
        images: Pixels,
        expected: Expected,
    ) -> None:
        with Accelerator(built.folder, board=board, timeout=0.3) as accelerator:
            kernel.mode = "never"
            with pytest.raises(
                AcceleratorError, match=r"not done after 0.3 s: CTRL = 0x1 \(start\), image = 0x8"
            ) as e:
                accelerator.run(images[0], "depth")
            assert "task = 0x1" in e.value.message and "can be used again" in e.value.hint
            assert accelerator.buffers == 6
            self.works(accelerator, kernel, images, expected)
        assert accelerator.buffers == 0

    def test_never_done_in_a_stream_keeps_what_was_done(
        self, built: Build, board: EmulatedBoard, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        with Accelerator(built.folder, board=board, timeout=0.3) as accelerator:
            stream = accelerator.stream(images[:5])
            done = [next(stream)]
            kernel.mode = "never"  # The second call is running already: it ends.
            with pytest.raises(AcceleratorError, match="not done after"):
                done.extend(stream)
            check(done, expected["semseg"][: len(done)])
            assert len(done) == 2
            self.works(accelerator, kernel, images, expected)

    def test_a_pointer_to_nowhere_is_diagnosed(
        self, accelerator: Accelerator, board: EmulatedBoard, images: Pixels
    ) -> None:
        accelerator._caller.timeout = 0.3
        accelerator._program.pointers["weights_1"] += 1 << 33
        with pytest.raises(AcceleratorError, match=r"weights_1 = 0xa.*no buffer holds"):
            accelerator.run(images[0])

    def test_done_without_a_start(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = "done"
        with pytest.raises(AcceleratorError, match="is done, but nothing was started"):
            accelerator.run(images[0])
        self.works(accelerator, kernel, images, expected)

    def test_done_without_having_run(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = "nothing"
        with pytest.raises(AcceleratorError, match="did not run: it wrote no result"):
            accelerator.run(images[0])
        self.works(accelerator, kernel, images, expected)

    def test_somebody_else_started_it(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = "hold"
        kernel.write(0, 1)
        threading.Timer(0.2, kernel.go.set).start()
        with pytest.raises(AcceleratorError, match="is running, but not for us"):
            accelerator.run(images[0])
        self.works(accelerator, kernel, images, expected)

    def test_left_running_by_a_program_that_died(
        self, built: Build, board: EmulatedBoard, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = "hold"
        kernel.write(0, 1)
        threading.Timer(0.2, kernel.go.set).start()
        with Accelerator(built.folder, board=board) as accelerator:
            self.works(accelerator, kernel, images, expected)
        kernel.write(kernel.kernel.registers["batch"], 0)
        kernel.write(0, 1)  # And its end left unread.
        deadline = time.monotonic() + 5
        while not kernel._flags & DONE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kernel._flags & DONE
        with Accelerator(built.folder, board=board) as accelerator:
            self.works(accelerator, kernel, images, expected)

    def test_left_stuck_by_a_program_that_died(
        self, built: Build, board: EmulatedBoard, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = "never"
        kernel.write(0, 1)
        kernel.mode = ""
        with Accelerator(built.folder, board=board, timeout=0.3) as accelerator:
            accelerator._caller.timeout = 20
            self.works(accelerator, kernel, images, expected)

    def test_another_design(
        self, built: Build, board: EmulatedBoard, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        kernel.mode = "id"
        with pytest.raises(AcceleratorError, match=r"on the board is hardware .* is for hardware") as caught:
            Accelerator(built.folder, board=board)
        assert built.spec.hardware_id in caught.value.message
        assert not board.memory.buffers, "refused before the first buffer"
        kernel.mode = ""
        with Accelerator(built.folder, board=board) as accelerator:
            self.works(accelerator, kernel, images, expected)

    def test_identifying_touches_no_memory(self, accelerator: Accelerator, kernel: FaultyKernel) -> None:
        batch = kernel.kernel.registers["batch"]
        first_start = kernel.writes.index((0, 1))
        assert (batch, 0) in kernel.writes[:first_start]
        pointers = [offset for name, offset in kernel.kernel.registers.items() if name.startswith("weights")]
        assert not {offset for offset, _ in kernel.writes[:first_start]} & set(pointers)

    @pytest.mark.parametrize("fits", range(6))
    def test_no_memory(
        self,
        built: Build,
        board: EmulatedBoard,
        kernel: FaultyKernel,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
        fits: int,
    ) -> None:
        real = board.memory.allocate
        allocated: list[int] = []

        def allocate(nbytes: int) -> EmulatedBuffer:
            if len(allocated) == fits:
                board.memory.capacity = 0
            allocated.append(nbytes)
            return real(nbytes)

        monkeypatch.setattr(board.memory, "allocate", allocate)
        with pytest.raises(AcceleratorError, match="contiguous memory are not to be had"):
            Accelerator(built.folder, board=board)
        assert not board.memory.buffers
        monkeypatch.undo()
        board.memory.capacity = 1 << 30
        with Accelerator(built.folder, board=board) as accelerator:
            self.works(accelerator, kernel, images, expected)

    @pytest.mark.parametrize(
        ("image", "reason"),
        [
            (np.zeros((3, 8, 17), np.uint8), r"shape \(3, 8, 17\), expected \(3, 8, 16\)"),
            (np.zeros((8, 16, 3), np.uint8), "channels come first"),
            (np.zeros((3, 8, 16), np.float32), "dtype float32, expected an array of uint8"),
            (np.zeros((3, 8, 16), np.int8), "dtype int8"),
            ([[1, 2]], "list, expected an array"),
            (None, "NoneType"),
            ("nowhere.png", "no such image"),
        ],
    )
    def test_wrong_image(
        self,
        accelerator: Accelerator,
        kernel: FaultyKernel,
        images: Pixels,
        expected: Expected,
        image: Any,
        reason: str,
    ) -> None:
        calls = kernel.calls
        for attempt in (
            lambda: accelerator.run(image),
            lambda: accelerator.run_batch([image]),
            lambda: list(accelerator.stream([image])),
        ):
            with pytest.raises(InputError) as caught:
                attempt()
            import re

            assert re.search(reason, f"{caught.value.message} {caught.value.hint}")
        assert kernel.calls == calls
        self.works(accelerator, kernel, images, expected)

    def test_wrong_task(self, accelerator: Accelerator, images: Pixels) -> None:
        wrong: list[Any] = ["nonsense", 2, -1, True, False, np.True_, 1.0, None, b"depth", ("depth",)]
        for task in wrong:
            with pytest.raises(InputError, match="unknown"):
                accelerator.run(images[0], task)
            with pytest.raises(InputError, match="unknown"):
                accelerator.run_batch(images, task)
            with pytest.raises(InputError, match="unknown"):
                accelerator.stream(images, ["semseg", task])
        for task in ("nonsense", 2, True, None):
            with pytest.raises(InputError, match="unknown"):
                accelerator.stream(images, task)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="an empty list"):
            accelerator.stream(images, [])

    def test_tasks_by_numbers_of_numpy(
        self, accelerator: Accelerator, images: Pixels, expected: Expected
    ) -> None:
        for number in (np.int64(1), np.uint8(1)):
            check([accelerator.run(images[0], number)], expected["depth"][:1])  # type: ignore[arg-type]
            check(list(accelerator.stream(images[:2], number)), expected["depth"][:2])  # type: ignore[arg-type]

    def test_exception_in_the_source_of_a_stream(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        def source() -> Iterator[Pixels]:
            yield from images[:3]
            raise RuntimeError("the camera fell off")

        done = []
        with pytest.raises(RuntimeError, match="camera"):
            for result in accelerator.stream(source()):
                done.append(result)
        check(done, expected["semseg"][:3])
        self.works(accelerator, kernel, images, expected)

    def test_exception_in_the_user_of_a_stream(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            for _ in accelerator.stream(images):
                raise ZeroDivisionError
        gc.collect()
        self.works(accelerator, kernel, images, expected)

    def test_leaving_the_block_in_the_middle_of_a_stream(
        self, built: Build, board: EmulatedBoard, images: Pixels
    ) -> None:
        with Accelerator(built.folder, board=board) as accelerator:
            stream = accelerator.stream(images)
            next(stream)
        assert not board.memory.buffers
        with pytest.raises(AcceleratorError, match="closed"):
            list(stream)

    def test_one_thing_at_a_time(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        stream = accelerator.stream(images[:3])
        first = next(stream)
        with pytest.raises(AcceleratorError, match="busy with stream"):
            accelerator.run(images[0])
        check([first, *stream], expected["semseg"][:3])
        self.works(accelerator, kernel, images, expected)

    def test_two_accelerators_on_one_board(
        self, built: Build, accelerator: Accelerator, board: EmulatedBoard, images: Pixels, expected: Expected
    ) -> None:
        buffers = len(board.memory.buffers)
        for _ in range(2):
            with pytest.raises(AcceleratorError, match="in use by another Accelerator"):
                Accelerator(built.folder, board=board)
            assert len(board.memory.buffers) == buffers
        check([accelerator.run(images[0])], expected["semseg"][:1])
        accelerator.close()
        with Accelerator(built.folder, board=board) as second:
            check([second.run(images[0])], expected["semseg"][:1])

    def test_one_that_was_forgotten_gives_the_board_back(self, built: Build, board: EmulatedBoard) -> None:
        Accelerator(built.folder, board=board)
        gc.collect()
        assert not board.memory.buffers
        with Accelerator(built.folder, board=board):
            pass

    def test_closed(self, built: Build, board: EmulatedBoard, images: Pixels) -> None:
        accelerator = Accelerator(built.folder, board=board)
        accelerator.close()
        accelerator.close()
        for attempt in (
            lambda: accelerator.run(images[0]),
            lambda: accelerator.run_batch(images),
            lambda: list(accelerator.stream(images)),
        ):
            with pytest.raises(AcceleratorError, match="is closed"):
                attempt()

    @pytest.mark.parametrize("ends", [True, False])
    def test_interrupted_while_waiting(
        self,
        built: Build,
        board: EmulatedBoard,
        kernel: FaultyKernel,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
        ends: bool,
    ) -> None:
        """Control-C while a call runs that ends soon after, or never."""
        monkeypatch.setattr(host_call, "GRACE", 0.5)
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with Accelerator(built.folder, board=board) as accelerator:
                kernel.mode = "hold" if ends else "never"
                threading.Timer(0.2, _thread.interrupt_main).start()
                threading.Timer(0.3, kernel.go.set).start()
                with pytest.raises(KeyboardInterrupt):
                    accelerator.run(images[0])
                assert not accelerator._caller.running
                self.works(accelerator, kernel, images, expected)
        finally:
            signal.signal(signal.SIGINT, handler)

    def test_interrupted_between_start_and_wait(
        self,
        accelerator: Accelerator,
        kernel: FaultyKernel,
        images: Pixels,
        expected: Expected,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupted(self: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(host_call.Caller, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            accelerator.run(images[0])
        monkeypatch.undo()
        self.works(accelerator, kernel, images, expected)

    @pytest.mark.parametrize(
        "timeout",
        [0, -1, float("nan"), -float("inf"), "x", "10", True, False, np.True_, [1], b"1", 10**400, 1j],
    )
    def test_bad_timeout(self, built: Build, board: EmulatedBoard, images: Pixels, timeout: Any) -> None:
        with pytest.raises(InputError, match=r"timeout = .*, expected more than 0 seconds, as a number"):
            Accelerator(built.folder, board=board, timeout=timeout)
        if isinstance(timeout, bool):
            return
        with Accelerator(built.folder, board=board) as accelerator:
            for attempt in (
                lambda: accelerator.run(images[0], wait=timeout),
                lambda: accelerator.run_batch(images, wait=timeout),
                lambda: accelerator.stream(images, wait=timeout),
            ):
                with pytest.raises(InputError, match=r"wait = .*, expected more than 0 seconds, as a number"):
                    attempt()

    @pytest.mark.parametrize("timeout", [30, 30.5, np.float32(30), np.int64(30), float("inf")])
    def test_good_timeout(
        self, built: Build, board: EmulatedBoard, images: Pixels, expected: Expected, timeout: Any
    ) -> None:
        with Accelerator(built.folder, board=board, timeout=timeout) as accelerator:
            check([accelerator.run(images[0], wait=timeout)], expected["semseg"][:1])

    def test_abandoned_stream_leaves_no_call_running(
        self, accelerator: Accelerator, kernel: FaultyKernel, images: Pixels, expected: Expected
    ) -> None:
        """Before anything else is started: the buffers are the caller's again."""
        stream = accelerator.stream(images)
        next(stream)
        assert accelerator._caller.running
        stream.close()  # type: ignore[attr-defined]
        assert not accelerator._caller.running
        self.works(accelerator, kernel, images, expected)


def test_no_pynq_and_no_board_is_one_error(built: Build) -> None:
    with pytest.raises(InputError, match="PYNQ cannot be imported") as caught:
        Accelerator(built.folder)
    assert "--emulate" in caught.value.hint


def test_the_facade_emulates(built: Build, images: Pixels, expected: Expected) -> None:
    with edgemoe.Accelerator(built.folder, emulate=True) as accelerator:
        assert accelerator.emulated
        check([accelerator.run(images[0], "depth")], expected["depth"][:1])
