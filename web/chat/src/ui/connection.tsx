/** How the connection is, in a line that is there when it is not as it should be. */

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { Icon } from "./icons.js";
import { usePlace } from "./parts.js";

const STOPPED: Readonly<Record<string, string>> = {
  superseded: "This device is connected elsewhere.", forbidden: "This device may not connect.", version: "This page is too old for the server: load it again.",
  protocol: "The page and the server do not understand each other: load the page again.", other_user: "The server took this device for somebody else's.",
};

/** A short break says nothing: most are over before anybody has read it. */
const PATIENCE_MS = 1_200;

export function ConnectionLine(): JSX.Element {
  const { chat } = usePlace();
  const state = chat.connection.value;
  const [late, setLate] = useState(false);
  const quiet = state.name === "live";
  useEffect(() => {
    setLate(false);
    if (quiet) return undefined;
    const timer = setTimeout(() => setLate(true), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, [quiet]);
  const sure = state.name === "elsewhere" || state.name === "stopped" || state.name === "waiting";
  const shown = !quiet && (sure || late);
  return (
    <div class={`connection ${state.name}${shown ? " shown" : ""}`} role="status" data-testid="connection" data-state={state.name} data-transport={state.transport}>
      {shown && <Words />}
    </div>
  );
}

function Words(): JSX.Element {
  const { chat } = usePlace();
  const state = chat.connection.value;
  switch (state.name) {
    case "elsewhere":
      return <><span>Open in another tab.</span><button type="button" class="link" onClick={() => chat.client.useHere()} data-testid="use-here">Use it here</button></>;
    case "stopped":
      return <><span>{STOPPED[state.reason ?? ""] ?? "Not connected."}</span><button type="button" class="link" onClick={() => void chat.client.connect()}>Connect</button></>;
    case "waiting":
      return (
        <><Icon name="alert" size={16} /><span>{navigator.onLine ? "No connection. What you write is sent later." : "You are offline. What you write is sent later."}</span>
          <button type="button" class="link" onClick={() => void chat.client.connect()}>Try now</button></>
      );
    case "catching_up": return <><span class="spinner small" /><span>Fetching what you missed…</span></>;
    default: return <><span class="spinner small" /><span>Connecting…</span></>;
  }
}
