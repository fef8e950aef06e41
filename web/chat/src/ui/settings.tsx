/** Profile, looks, devices, signing out. */

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { storeTheme, storedTheme } from "../state/theme.js";
import type { Theme } from "../state/theme.js";
import { spaced } from "../text/phone.js";
import { Icon } from "./icons.js";
import type { IconName } from "./icons.js";
import { Avatar, PanelHead, usePlace } from "./parts.js";
import { wordsOf } from "./words.js";

const ABOUT_MAX = 140;
const NAME_MAX = 64;

function ProfileForm(): JSX.Element {
  const { chat } = usePlace();
  const profile = chat.profile.value;
  const [name, setName] = useState(profile?.name ?? "");
  const [about, setAbout] = useState(profile?.about ?? "");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    setName(profile?.name ?? "");
    setAbout(profile?.about ?? "");
  }, [profile?.name, profile?.about]);
  const changed = name.trim() !== (profile?.name ?? "") || about.trim() !== (profile?.about ?? "");
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    const { account } = chat.session;
    if (account === null || busy) return;
    setBusy(true);
    setProblem(null);
    try {
      chat.ownProfile(await account.updateMe({ ...(name.trim() === "" ? {} : { name: name.trim() }), about: about.trim() }));
      chat.note("Saved.");
    } catch (error) {
      setProblem(wordsOf(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void save(event)} class="group">
      <label class="field">
        <span>Name</span>
        <input value={name} onInput={(event) => setName(event.currentTarget.value)} maxLength={NAME_MAX} dir="auto" autocomplete="name" data-testid="profile-name" />
      </label>
      <label class="field">
        <span>About</span>
        <input value={about} onInput={(event) => setAbout(event.currentTarget.value)} maxLength={ABOUT_MAX} dir="auto" autocomplete="off" placeholder="A line about you" data-testid="profile-about" />
      </label>
      {problem !== null && <p class="problem" role="alert">{problem}</p>}
      {changed && <button type="submit" class="button" disabled={busy} data-testid="save-profile">Save</button>}
    </form>
  );
}

const THEMES: readonly (readonly [Theme, string, IconName])[] = [["system", "System", "half"], ["light", "Light", "sun"], ["dark", "Dark", "moon"]];

function ThemeSwitch(): JSX.Element {
  const [theme, setTheme] = useState(storedTheme);
  const choose = (next: Theme): void => { storeTheme(next); setTheme(next); };
  return (
    <fieldset class="switch" data-testid="theme">
      <legend>Appearance</legend>
      <div>
        {THEMES.map(([value, label, icon]) => (
          <label key={value} class={value === theme ? "chosen" : ""}>
            <input type="radio" name="theme" value={value} checked={value === theme} onChange={() => choose(value)} />
            <Icon name={icon} size={18} /> {label}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

const KEYS: readonly (readonly [string, string])[] = [
  ["Alt + N", "New chat"], ["Alt + ↑ ↓", "Chat above, below"], ["Alt + K", "Search chats"], ["Enter", "Send; in the messages: reply"], ["Shift + Enter", "New line"],
  ["↑ ↓", "From message to message"], ["C", "Copy a message"], ["Esc", "Back"],
];

function Keys(): JSX.Element {
  return (
    <details class="group keys">
      <summary><Icon name="keyboard" size={20} /> Keyboard</summary>
      <dl>
        {KEYS.map(([keys, what]) => <div key={keys}><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></div>)}
      </dl>
    </details>
  );
}

export function Settings(): JSX.Element {
  const { chat, router, signOut } = usePlace();
  const [asking, setAsking] = useState(false);
  const profile = chat.profile.value;
  const own = chat.people.name(chat.me);
  chat.version.value;
  const waiting = asking ? chat.client.pending().length : 0;
  const copyId = (): void => void navigator.clipboard?.writeText(chat.me).then(() => chat.note("Copied."), () => chat.note("The browser does not allow that."));
  return (
    <section class="panel" aria-label="Profile and settings" data-testid="settings">
      <PanelHead title="Profile and settings" onBack={() => router.go({ name: "list" })} />
      <div class="panel-body">
        <div class="own-card">
          <Avatar user={chat.me} name={own} large />
          {profile !== null && profile.phone !== "" && <p class="own-phone">{spaced(profile.phone)}</p>}
          <p class="own-id">User id <button type="button" class="link" onClick={copyId} title="Copy" aria-label={`User id ${chat.me}, copy`} data-testid="own-id">{chat.me}</button></p>
        </div>
        {chat.session.account !== null && <ProfileForm />}
        <ThemeSwitch />
        {chat.session.account !== null && (
          <button type="button" class="panel-link" onClick={() => router.go({ name: "devices" })} data-testid="open-devices">
            <Icon name="device" /> <span>Devices</span> <Icon name="right" size={18} />
          </button>
        )}
        <Keys />
        {!asking ? (
          <button type="button" class="panel-link danger" onClick={() => setAsking(true)} data-testid="sign-out"><Icon name="out" /> <span>Sign out</span></button>
        ) : (
          <div class="group confirm" role="group" aria-label="Sign out">
            <p>Sign out on this device? {waiting > 0 ? `${waiting} message${waiting === 1 ? " that has" : "s that have"} not been sent will be lost.` : "Messages stay on the server."}</p>
            <div class="two">
              <button type="button" class="button quiet" onClick={() => setAsking(false)}>Stay</button>
              <button type="button" class="button danger" onClick={signOut} data-testid="confirm-sign-out">Sign out</button>
            </div>
          </div>
        )}
      </div>
    </section>
  );
}
