/** Who is signed in on this device, by an account or by a token, and how to become so. */

import { Account, ClientError, tokenCredentials } from "@switchboard/client";
import type { Credentials } from "@switchboard/client";

/** A signed-in person: `account` is absent where a token is all there is. */
export interface Session {
  readonly credentials: Credentials;
  readonly account: Account | null;
}

const TOKEN = "switchboard.chat.token";
const ACCOUNT = "switchboard.session";

function storedToken(): string | null {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

function keepToken(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  } catch {
    // then it is good until the page is loaded anew
  }
}

/** A name for this installation that nobody else has. */
export function newDevice(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `web-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** What a person would call this device: `Firefox on Linux`. */
export function deviceLabel(agent = navigator.userAgent): string {
  const browser = /Edg\//.test(agent) ? "Edge" : /OPR\//.test(agent) ? "Opera" : /Firefox\//.test(agent) ? "Firefox" : /Chrom(e|ium)\//.test(agent) ? "Chrome"
    : /Safari\//.test(agent) ? "Safari" : "Browser";
  const system = /iPhone/.test(agent) ? "iPhone" : /iPad/.test(agent) ? "iPad" : /Android/.test(agent) ? "Android" : /Windows/.test(agent) ? "Windows"
    : /Mac OS X/.test(agent) ? "Mac" : /CrOS/.test(agent) ? "ChromeOS" : /Linux/.test(agent) ? "Linux" : "another system";
  return `${browser} on ${system}`;
}

/** Whoever is signed in here, or `null`. */
export function presentSession(): Session | null {
  const account = new Account();
  if (account.session !== null) return { credentials: account, account };
  const token = storedToken();
  if (token === null) return null;
  try {
    return tokenSession(token);
  } catch {
    keepToken(null);
    return null;
  }
}

/** Signed in by a token that came from elsewhere (`switchboard token`); kept while this tab lives. */
export function tokenSession(token: string): Session {
  const device = (() => {
    try {
      return sessionStorage.getItem(`${TOKEN}.device`) ?? newDevice();
    } catch {
      return newDevice();
    }
  })();
  const credentials = (() => {
    try {
      // a token may be good for one device only
      return tokenCredentials(token);
    } catch (error) {
      if (error instanceof ClientError && /no device/.test(error.message)) return tokenCredentials(token, device);
      throw error;
    }
  })();
  keepToken(token);
  try {
    sessionStorage.setItem(`${TOKEN}.device`, device);
  } catch {
    // then the next load is another device
  }
  return { credentials, account: null };
}

/** Forgets the session here; the server is told where there is one that can be. */
export async function endSession(session: Session): Promise<void> {
  keepToken(null);
  await session.account?.signOut();
}

/** Calls `ended` when another tab has signed out. */
export function onEndedElsewhere(session: Session, ended: () => void): () => void {
  const heard = (event: StorageEvent): void => {
    if (session.account !== null && (event.key === ACCOUNT || event.key === null) && session.account.session === null) ended();
  };
  addEventListener("storage", heard);
  return () => removeEventListener("storage", heard);
}
