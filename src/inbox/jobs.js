// Runs named jobs: each once at a time, and after a failure not again before a while.

import { backoff } from './feed.js';

/** The jobs of one owner. */
export class Jobs {
  #clock;
  #onFree;
  /** @type {Map<string, {promise: Promise<void>|null, failures: number, isWaiting: boolean,
   *   cancel: () => void}>} */
  #jobs = new Map();

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {() => void} onFree Called when one has ended, and when one need not wait any more.
   */
  constructor(clock, onFree) {
    this.#clock = clock;
    this.#onFree = onFree;
  }

  /**
   * Does a job; if it is under way already, the answer is that one's end. Never rejects.
   * @param {string} name
   * @param {() => Promise<void>} work
   * @param {(error: import('./types.js').ApiError) => void} onError
   * @returns {Promise<void>}
   */
  run(name, work, onError) {
    const known = this.#jobs.get(name);
    const job = known ??
      { promise: null, failures: 0, isWaiting: false, cancel: () => undefined };
    this.#jobs.set(name, job);
    if (job.promise) return job.promise;
    job.cancel();
    job.isWaiting = false;
    job.promise = work().then(() => {
      job.failures = 0;
    }, (error) => {
      this.#hold(job, error);
      onError(error.toJSON?.() ?? {
        status: 0, code: 'internal', detail: String(error), errors: [], retryAfter: null,
      });
    }).finally(() => {
      job.promise = null;
      this.#onFree();
    });
    return job.promise;
  }

  /** Whether a job is neither under way nor waiting for its next try. @param {string} name */
  mayRun(name) {
    const job = this.#jobs.get(name);
    return !job || (job.promise === null && !job.isWaiting);
  }

  /** Nothing waits for its next try any more. */
  hurry() {
    for (const job of this.#jobs.values()) {
      job.cancel();
      job.isWaiting = false;
    }
  }

  /** Forgets all of them; those under way end unheard. */
  clear() {
    this.hurry();
    this.#jobs.clear();
  }

  #hold(job, error) {
    job.failures += 1;
    job.isWaiting = true;
    const asked = (error.retryAfter ?? 0) * 1000;
    const wait = Math.max(backoff(job.failures, Math.random()), asked);
    job.cancel = this.#clock.after(wait, () => {
      job.isWaiting = false;
      this.#onFree();
    });
  }
}
