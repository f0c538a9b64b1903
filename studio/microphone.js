//! Owns the microphone's stream and its level meter. Must never process the sound that is recorded:
//! the meter listens beside it.

const CONSTRAINTS = {
  // A programme is not a phone call: the browser's call processing would eat music.
  echoCancellation: false,
  noiseSuppression: false,
  autoGainControl: false,
  channelCount: { ideal: 2 },
};

const FLOOR_DB = -60;
const PEAK_HOLD_MS = 1_500;

export class Microphone {
  #stream = null;
  #context = null;
  #analyser = null;
  #samples = new Float32Array(2048);
  #peak = { db: FLOOR_DB, at: 0 };

  /** The open stream, or `null`. */
  get stream() {
    return this.#stream;
  }

  /** Opens `deviceId` (empty: the default one); calls `onLost` if it goes away by itself. */
  async open(deviceId, onLost) {
    const device = deviceId ? { deviceId: { exact: deviceId } } : {};
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { ...CONSTRAINTS, ...device } });
    const previous = this.#stream;
    this.#stream = stream;
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      if (this.#stream !== stream) return;
      this.#stream = null;
      onLost();
    });
    await this.#listen(stream);
    return { stream, release: () => previous?.getTracks().forEach((track) => track.stop()) };
  }

  /** Devices to choose from; labels are empty until the user has allowed one. */
  static async devices() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId !== "default");
  }

  /** Present peak level in dB full scale and the held one, not below -60. */
  level(now) {
    if (!this.#analyser || !this.#stream) return { db: FLOOR_DB, peakDb: FLOOR_DB };
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const top = this.#samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    const db = Math.max(FLOOR_DB, 20 * Math.log10(top || 1e-9));
    if (db >= this.#peak.db || now - this.#peak.at > PEAK_HOLD_MS) this.#peak = { db, at: now };
    return { db, peakDb: this.#peak.db };
  }

  async #listen(stream) {
    this.#context ??= new AudioContext();
    // Without a user gesture the context may stay suspended; the meter then wakes with the first click.
    if (this.#context.state === "suspended") this.#context.resume().catch(() => {});
    this.#analyser?.disconnect();
    this.#analyser = this.#context.createAnalyser();
    this.#analyser.fftSize = this.#samples.length;
    this.#context.createMediaStreamSource(stream).connect(this.#analyser);
  }
}
