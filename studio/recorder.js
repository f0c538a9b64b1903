//! Owns one MediaRecorder run: turns its blobs into bytes, in order, and knows when the last one has
//! come. Must never reorder or drop a blob, and never starts a second run.

/** Interval at which the encoder is asked for data. Always given: without it browsers write files, not streams. */
const TIMESLICE_MS = 250;

/** How long `stop` waits for a browser that does not deliver its last blob. */
const STOP_DEADLINE_MS = 5_000;

export class RecorderRun {
  #recorder;
  #clock;
  #inOrder = Promise.resolve();
  #finished;

  /** `onBytes(bytes, at)` per blob; `onEnd(error|null)` once, after the last one, however the run ended. */
  constructor({ MediaRecorder, stream, mime, bitsPerSecond, clock, onBytes, onEnd }) {
    this.#clock = clock;
    this.#recorder = new MediaRecorder(stream, { mimeType: mime, audioBitsPerSecond: bitsPerSecond });
    let fault = null;
    this.#recorder.ondataavailable = ({ data }) => {
      const at = clock.now();
      const bytes = data.arrayBuffer();
      this.#inOrder = this.#inOrder.then(async () => onBytes(new Uint8Array(await bytes), at));
    };
    this.#recorder.onerror = (event) => {
      fault = event.error ?? new Error("the recorder failed");
    };
    this.#finished = new Promise((resolve) => {
      this.#recorder.onstop = () => resolve(this.#inOrder);
    }).then(
      () => onEnd(fault),
      (error) => onEnd(error),
    );
  }

  /** What the encoder really writes. */
  get mime() {
    return this.#recorder.mimeType;
  }

  start() {
    this.#recorder.start(TIMESLICE_MS);
  }

  /** Ends the run; resolves when every byte has been handed over, or after a deadline. */
  async stop() {
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    let timer;
    const deadline = new Promise((resolve) => {
      timer = this.#clock.setTimeout(resolve, STOP_DEADLINE_MS);
    });
    await Promise.race([this.#finished, deadline]);
    this.#clock.clearTimeout(timer);
  }
}
