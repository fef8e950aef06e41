/** The page begins. */

import { render } from "preact";
import { App, Fence } from "./ui/app.js";

const root = document.getElementById("app");
if (root !== null) {
  root.replaceChildren();
  render(<Fence><App /></Fence>, root);
}

/** The one address a script may be loaded from by name: see `require-trusted-types-for` in the page's policy. */
interface Policies {
  createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): { createScriptURL(url: string): string };
}

function serviceWorkerUrl(): string {
  const policies = (globalThis as { trustedTypes?: Policies }).trustedTypes;
  return policies === undefined ? "/sw.js" : policies.createPolicy("switchboard", { createScriptURL: () => "/sw.js" }).createScriptURL("");
}

// the shell without a server; pages without TLS have none, but for this machine's own
if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register(serviceWorkerUrl()).catch((error: unknown) => console.warn("no offline shell:", error));
}
