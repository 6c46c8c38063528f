"""Checks that TensorBoard's own reader understands our event files. Needs `pip install tensorboard`.

    python scripts/check-tensorboard.py            writes events (dist/ must be built), reads them with TensorBoard, and
                                                   keeps the bytes it read as golden of test/train/tensorboard.test.ts
    python scripts/check-tensorboard.py FOLDER     prints the scalars of an existing run
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
GOLDEN = os.path.join(ROOT, "test", "goldens", "tensorboard", "events.out.tfevents")

# The first file is the golden: test/train/tensorboard.test.ts makes the same calls.
WRITE = """
import { TensorBoardWriter } from './dist/train/tensorboard.js';
const folder = process.argv[1];
const first = new TensorBoardWriter(folder, () => 1700000000);
first.text(0, 'config', '# mini\\n\\nErdős');
for (let step = 1; step <= 3; step++) first.scalars(step, { 'loss/train': 8 / step, 'learning rate': 0.001 * step });
first.rewind(2);
first.scalars(3, { 'loss/train': 1.5 });
first.close();
const second = new TensorBoardWriter(folder, () => 1700000001);
second.rewind(2);
second.scalars(3, { 'loss/train': 42 });
second.close();
"""


def read(folder):
    accumulator = EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def check():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["node", "--input-type=module", "-e", WRITE, folder], cwd=ROOT, check=True)
        accumulator = read(folder)
        # Step 3 was written again after the rewind, and once more by the session that began after step 2.
        loss = [(event.step, event.value) for event in accumulator.Scalars("loss/train")]
        assert loss == [(1, 8.0), (2, 4.0), (3, 42.0)], loss
        rates = [event.step for event in accumulator.Scalars("learning rate")]
        assert rates == [1, 2], rates
        (note,) = accumulator.Tensors("config")
        assert note.tensor_proto.string_val[0].decode() == "# mini\n\nErdős", note
        os.makedirs(os.path.dirname(GOLDEN), exist_ok=True)
        shutil.copyfile(sorted(glob.glob(os.path.join(folder, "*")))[0], GOLDEN)
        print("scalars, text and superseded steps read back as written; golden kept")


def show(folder):
    accumulator = read(folder)
    for tag in accumulator.Tags()["scalars"]:
        events = accumulator.Scalars(tag)
        print(f"{tag}: {len(events)} values, last {events[-1].value:.6g} at step {events[-1].step}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        show(sys.argv[1])
    else:
        check()
