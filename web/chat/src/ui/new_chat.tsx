/** Begins a chat: by an exact phone number, or a user's id. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { ApiError, directConversation } from "@switchboard/client";
import type { Chat } from "../state/chat.js";
import { whoOf } from "../text/phone.js";
import { IconButton, usePlace } from "./parts.js";
import { wordsOf } from "./words.js";

/** Ids below this are given to tools, not to accounts. */
const FIRST_ACCOUNT = 2n ** 32n;

/** The user that is meant, or what is wrong in words. */
async function find(chat: Chat, typed: string): Promise<{ readonly user: string } | { readonly problem: string }> {
  const who = whoOf(typed);
  const { account } = chat.session;
  if (who === null) return { problem: "A phone number with its country, such as +49 151 23456789, or a user id." };
  if ("phone" in who) {
    if (account === null) return { problem: "Signed in by a token, only user ids can be used." };
    const found = await account.lookup(who.phone);
    if (found === null) return { problem: "Nobody with this number is here." };
    chat.people.learn(found, who.phone);
    return { user: found.user };
  }
  if (account === null || BigInt(who.user) < FIRST_ACCOUNT) return who;
  try {
    chat.people.learn(await account.profile(who.user));
    return who;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return { problem: "Nobody has this id." };
    throw error;
  }
}

export function NewChat({ onClose }: { readonly onClose: () => void }): JSX.Element {
  const { chat, router } = usePlace();
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => shown?.close();
  }, []);

  const start = async (): Promise<void> => {
    if (busy) return;
    setBusy(true);
    setProblem(null);
    try {
      const found = await find(chat, typed);
      if ("problem" in found) return setProblem(found.problem);
      onClose();
      router.go({ name: "conversation", conversation: directConversation(chat.me, found.user) });
    } catch (error) {
      setProblem(wordsOf(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="new-chat-title" onClose={onClose} onClick={(event) => { if (event.target === dialog.current) onClose(); }} data-testid="new-chat-dialog">
      <form onSubmit={(event) => { event.preventDefault(); void start(); }}>
        <header class="dialog-head">
          <h2 id="new-chat-title">New chat</h2>
          <IconButton icon="close" label="Close" onClick={onClose} />
        </header>
        <label class="field">
          <span>Phone number or user id</span>
          <input value={typed} onInput={(event) => { setTyped(event.currentTarget.value); setProblem(null); }} autocomplete="off" autocapitalize="off" spellcheck={false}
            placeholder="+49 151 23456789" aria-invalid={problem !== null} aria-describedby="new-chat-hint" data-testid="who" autofocus />
        </label>
        <p id="new-chat-hint" class="hint-text">It must be the whole number: there is no search over people.</p>
        {problem !== null && <p class="problem" role="alert" data-testid="who-problem">{problem}</p>}
        <button type="submit" class="button wide" disabled={busy || typed.trim() === ""} data-testid="start-chat">{busy ? "Looking…" : "Start chat"}</button>
      </form>
    </dialog>
  );
}
