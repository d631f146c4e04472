/** Runs jobs one after another; of those that wait, the newest alone. */
export class Latest {
  private running = false;
  private waiting: (() => Promise<void>) | null = null;

  /** Returns whether the job that runs is to make way for a newer one. */
  get isOutdated(): boolean {
    return this.waiting !== null;
  }

  /** Runs a job, at once or when the running one has ended. */
  async run(job: () => Promise<void>): Promise<void> {
    this.waiting = job;
    if (this.running) return;
    this.running = true;
    try {
      while (this.waiting) {
        const next: () => Promise<void> = this.waiting;
        this.waiting = null;
        await next();
      }
    } finally {
      this.running = false;
    }
  }
}
