/**
 * The application's handlers: told in passing, or waited for one by one.
 *
 * @packageDocumentation
 */

import { fullJitter } from "./core/backoff.js";
import { wordsOf } from "./errors.js";
import type { ClientEvents, EventName, Handler, Problem } from "./events.js";

/** The handlers of one client. */
export class Handlers {
  readonly #handlers = new Map<EventName, Set<Handler<never>>>();

  /** Adds a handler; the answer takes it away. */
  on<N extends EventName>(name: N, handler: Handler<N>): () => void {
    const handlers = this.#handlers.get(name) ?? new Set();
    this.#handlers.set(name, handlers);
    // a wrapper, so that the same function may be added twice and each taken away by itself
    const entry = ((event: ClientEvents[N]) => handler(event)) as Handler<never>;
    handlers.add(entry);
    return () => { handlers.delete(entry); };
  }

  #of<N extends EventName>(name: N): Handler<N>[] {
    return [...(this.#handlers.get(name) ?? [])] as unknown as Handler<N>[];
  }

  /** Tells; nobody waits. A handler that throws or rejects is a problem, told once; one of `problem` itself is not told. */
  tell<N extends EventName>(name: N, event: ClientEvents[N]): void {
    const failed = (thrown: unknown): void => {
      if (name !== "problem") this.tell("problem", handlerProblem(name, thrown));
    };
    for (const handler of this.#of(name)) {
      try {
        const answer = handler(event);
        if (answer instanceof Promise) answer.catch(failed);
      } catch (thrown) {
        failed(thrown);
      }
    }
  }

  /**
   * Hands over and waits until every handler has taken it. One that fails gets it again, with back-off, alone.
   *
   * @param wanted - asked before each repeat: whether the event is still to be handed over
   */
  async take<N extends EventName>(name: N, event: ClientEvents[N], wanted: () => boolean): Promise<void> {
    await Promise.all(this.#of(name).map(async (handler) => {
      for (let attempt = 0; wanted(); attempt += 1) {
        try {
          await handler(event);
          return;
        } catch (thrown) {
          this.tell("problem", handlerProblem(name, thrown));
          await new Promise((resolve) => { setTimeout(resolve, fullJitter(attempt, Math.random(), 100)); });
        }
      }
    }));
  }
}

const handlerProblem = (name: string, thrown: unknown): Problem => ({ code: "handler", message: `a handler of "${name}" failed: ${wordsOf(thrown)}` });
