/** The whole page: signed out or in. */

import { useSignalEffect } from "@preact/signals";
import { Component } from "preact";
import type { ComponentChildren, JSX } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { forgetAll } from "../cache/cache.js";
import { Chat } from "../state/chat.js";
import { Router } from "../state/route.js";
import { endSession, onEndedElsewhere, presentSession } from "../state/session.js";
import type { Session } from "../state/session.js";
import { ConversationView, NothingOpen } from "./conversation.js";
import { Devices } from "./devices.js";
import { NewChat } from "./new_chat.js";
import { PlaceContext, usePlace } from "./parts.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { SignIn } from "./sign_in.js";

const SIGNED_OUT = "You are signed out.";
const ENDED = "This device was signed out. Its messages are not kept here any more.";

/** A fault of this page: said, with a way on, instead of a white page. */
export class Fence extends Component<{ readonly children: ComponentChildren }, { readonly error: Error | null }> {
  override state = { error: null as Error | null };

  override componentDidCatch(error: Error): void {
    console.error(error);
    this.setState({ error });
  }

  override render(): ComponentChildren {
    return this.state.error === null ? this.props.children : <Broken />;
  }
}

function Broken(): JSX.Element {
  return (
    <main class="sign-in">
      <div class="card" role="alert" data-testid="broken">
        <h1>Something broke</h1>
        <p class="lead">It is a fault of this page. Your messages are on the server.</p>
        <button type="button" class="button wide" onClick={() => location.reload()}>Load the page again</button>
        <button type="button" class="link quiet" onClick={() => void forgetAll().then(() => location.reload())}>Forget what is stored here, and load again</button>
      </div>
    </main>
  );
}

export function App(): JSX.Element {
  const [session, setSession] = useState<Session | null>(presentSession);
  const [note, setNote] = useState<string | null>(null);
  const ended = useCallback((why: string): void => {
    history.replaceState(null, "", "#/");
    setNote(why);
    setSession(null);
  }, []);
  if (session === null) return <SignIn note={note} onSignedIn={(next) => { setNote(null); setSession(next); }} />;
  return <SignedIn key={session.credentials.device} session={session} onEnded={ended} />;
}

interface SignedInProps {
  readonly session: Session;
  readonly onEnded: (why: string) => void;
}

function SignedIn({ session, onEnded }: SignedInProps): JSX.Element {
  const [place] = useState(() => {
    const chat = new Chat(session);
    return { chat, router: new Router(chat.me) };
  });
  const { chat, router } = place;
  const [ending, setEnding] = useState(false);
  const begun = useRef(false);
  // nobody can sign in before it is done: what it deletes could be theirs
  const end = useCallback(async (why: string, tell: boolean): Promise<void> => {
    if (begun.current) return;
    begun.current = true;
    setEnding(true);
    await chat.close().catch((error: unknown) => console.error(error));
    if (tell) await endSession(session).catch((error: unknown) => console.warn("the server was not told:", error));
    // somebody has signed in in another tab already: what is stored is theirs
    if (session.account === null || session.account.session === null) await forgetAll();
    onEnded(why);
  }, []);
  useEffect(() => {
    void chat.start();
    const stop = onEndedElsewhere(session, () => void end(SIGNED_OUT, false));
    return () => {
      stop();
      router.close();
    };
  }, []);
  useSignalEffect(() => {
    const { name, reason } = chat.connection.value;
    if (name === "stopped" && reason === "unauthenticated") void end(ENDED, session.account === null);
  });
  useSignalEffect(() => {
    const route = router.route.value;
    chat.show(route.name === "conversation" ? route.conversation : null);
  });
  useSignalEffect(() => {
    const unread = chat.lines.unread.value;
    document.title = unread > 0 ? `(${unread > 999 ? "999+" : unread}) Switchboard` : "Switchboard";
    void navigator.setAppBadge?.(unread)?.catch(() => {});
  });
  return (
    <PlaceContext.Provider value={{ ...place, signOut: () => void end(SIGNED_OUT, true) }}>
      {ending ? <Ending /> : <Frame />}
    </PlaceContext.Provider>
  );
}

function Ending(): JSX.Element {
  return (
    <main class="sign-in">
      <div class="card" role="status" data-testid="ending">
        <h1>Switchboard</h1>
        <p class="lead">Signing out…</p>
      </div>
    </main>
  );
}

/** Keys that work everywhere. */
function useKeys(onNew: () => void): void {
  const { chat, router } = usePlace();
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent): void => {
      if (!event.altKey || event.ctrlKey || event.metaKey) return;
      const lines = chat.lines.sorted.peek();
      const at = lines.findIndex((line) => line.conversation === chat.open.peek());
      const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
      const next = step === 0 ? undefined : lines[at < 0 ? 0 : at + step];
      if (next !== undefined) router.go({ name: "conversation", conversation: next.conversation });
      else if (event.code === "KeyN") onNew();
      else if (event.code === "KeyK") document.querySelector<HTMLElement>("[data-testid=search]")?.focus();
      else if (step === 0) return;
      event.preventDefault();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
}

function Frame(): JSX.Element {
  const { chat, router } = usePlace();
  const [creating, setCreating] = useState(false);
  const onNew = useCallback(() => setCreating(true), []);
  useKeys(onNew);
  const route = router.route.value;
  const side = route.name === "settings" ? <Settings /> : route.name === "devices" ? <Devices /> : <Sidebar onNew={onNew} />;
  return (
    <div class={`frame at-${route.name}`} data-testid="frame">
      <div class="side">{side}</div>
      <main class="content">
        {route.name === "conversation" ? <ConversationView conversation={route.conversation} /> : <NothingOpen onNew={onNew} />}
      </main>
      {creating && <NewChat onClose={() => setCreating(false)} />}
      <div class="toasts" role="status">
        {chat.toasts.value.map((toast) => <p key={toast.id} class="toast">{toast.text}</p>)}
      </div>
      <p class="unseen" aria-live="polite">{chat.spoken.value}</p>
    </div>
  );
}
