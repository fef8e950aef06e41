/** Where the rows of a long list are: measured heights where there are any, estimates elsewhere. */
export class Heights {
  readonly #measured = new Map<string, number>();
  #keys: readonly string[] = [];
  #estimates: readonly number[] = [];
  #index = new Map<string, number>();
  /** `#offsets[i]` is where row i begins; one more for the end. */
  #offsets = new Float64Array(1);
  #dirty = true;

  /** The rows in their order, and a guess for each that was not measured. */
  set(keys: readonly string[], estimates: readonly number[]): void {
    this.#keys = keys;
    this.#estimates = estimates;
    this.#index = new Map(keys.map((key, i) => [key, i]));
    this.#dirty = true;
    // rows that are gone are forgotten once they are many
    if (this.#measured.size > 2 * keys.length + 200) {
      for (const key of this.#measured.keys()) if (!this.#index.has(key)) this.#measured.delete(key);
    }
  }

  /** Takes a row's height; whether it was another one before. */
  measure(key: string, height: number): boolean {
    if (Math.abs((this.#measured.get(key) ?? -1) - height) < 0.01) return false;
    this.#measured.set(key, height);
    this.#dirty = true;
    return true;
  }

  get count(): number { return this.#keys.length; }
  get total(): number { return this.offset(this.#keys.length); }

  /** Where row `index` begins. */
  offset(index: number): number {
    if (this.#dirty) this.#sum();
    return this.#offsets[Math.max(0, Math.min(index, this.#keys.length))] ?? 0;
  }

  #sum(): void {
    const offsets = new Float64Array(this.#keys.length + 1);
    let sum = 0;
    this.#keys.forEach((key, i) => {
      sum += this.#measured.get(key) ?? this.#estimates[i] ?? 0;
      offsets[i + 1] = sum;
    });
    this.#offsets = offsets;
    this.#dirty = false;
  }

  indexOf(key: string): number { return this.#index.get(key) ?? -1; }
  keyAt(index: number): string | undefined { return this.#keys[index]; }

  /** The row at a distance from the top; the last one beyond the end. */
  at(y: number): number {
    if (this.#dirty) this.#sum();
    let [low, high] = [0, Math.max(0, this.#keys.length - 1)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#offsets[middle] ?? 0) <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
