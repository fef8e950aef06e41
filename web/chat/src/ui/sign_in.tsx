/** Signing in: phone number, code, and for a new account a name. Or a token, where somebody has one. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { Account, ApiError } from "@switchboard/client";
import type { Registration } from "@switchboard/client";
import { deviceLabel, newDevice, tokenSession } from "../state/session.js";
import type { Session } from "../state/session.js";
import { phoneOf, spaced } from "../text/phone.js";
import { Icon, Logo } from "./icons.js";
import { wordsOf } from "./words.js";

type Step = "phone" | "code" | "name" | "token";

interface Props {
  /** Why nobody is signed in any more, if that is so. */
  readonly note: string | null;
  readonly onSignedIn: (session: Session) => void;
}

interface Shared {
  readonly busy: boolean;
  /** Does work, and says what went wrong. */
  readonly work: (work: () => Promise<void>) => void;
  readonly fail: (problem: string) => void;
  readonly clear: () => void;
}

export function SignIn({ note, onSignedIn }: Props): JSX.Element {
  const account = useRef(new Account()).current;
  const [step, setStep] = useState<Step>("phone");
  const [phone, setPhone] = useState("");
  const [registration, setRegistration] = useState<Registration | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const shared: Shared = {
    busy, fail: setProblem, clear: () => setProblem(null),
    work: (work) => {
      if (busy) return;
      setBusy(true);
      setProblem(null);
      work().catch((error: unknown) => {
        setProblem(wordsOf(error));
        if (error instanceof ApiError && error.status === 501) setStep("token");
      }).finally(() => setBusy(false));
    },
  };
  const ask = async (number: string): Promise<void> => {
    setRegistration(await account.register(number));
    setPhone(number);
    setStep("code");
  };
  const signedIn = (): void => onSignedIn({ credentials: account, account });
  const verified = (isNew: boolean): void => (isNew ? setStep("name") : signedIn());
  return (
    <main class="sign-in">
      <div class="card" data-testid="sign-in" data-step={step}>
        <Logo size={60} />
        <h1>Switchboard</h1>
        {note !== null && step === "phone" && <p class="note" role="status" data-testid="signed-out-note">{note}</p>}
        {step === "phone" && <PhoneStep shared={shared} phone={phone} onPhone={setPhone} ask={ask} />}
        {step === "code" && registration !== null && (
          <CodeStep shared={shared} account={account} phone={phone} registration={registration} again={() => ask(phone)} onVerified={verified} onBack={() => { setProblem(null); setStep("phone"); }} />
        )}
        {step === "name" && <NameStep shared={shared} account={account} onDone={signedIn} />}
        {step === "token" && <TokenStep shared={shared} onSignedIn={onSignedIn} />}
        {problem !== null && <p class="problem" role="alert" data-testid="sign-in-problem">{problem}</p>}
        {step === "phone" && <button type="button" class="link quiet" onClick={() => { setProblem(null); setStep("token"); }} data-testid="by-token">Sign in with a token</button>}
        {step === "token" && <button type="button" class="link quiet" onClick={() => { setProblem(null); setStep("phone"); }}>Sign in with a phone number</button>}
      </div>
    </main>
  );
}

interface PhoneProps {
  readonly shared: Shared;
  readonly phone: string;
  readonly onPhone: (typed: string) => void;
  readonly ask: (number: string) => Promise<void>;
}

function PhoneStep({ shared, phone, onPhone, ask }: PhoneProps): JSX.Element {
  const submit = (event: Event): void => {
    event.preventDefault();
    const number = phoneOf(phone);
    if (number === null) return shared.fail("Write the number with its country, such as +49 151 23456789.");
    shared.work(() => ask(number));
  };
  return (
    <form onSubmit={submit}>
      <p class="lead">Your phone number is who you are here. A code goes to it.</p>
      <label class="field">
        <span>Phone number</span>
        <input type="tel" inputMode="tel" autocomplete="tel" value={phone} onInput={(event) => { onPhone(event.currentTarget.value); shared.clear(); }}
          placeholder="+49 151 23456789" autofocus data-testid="phone" />
      </label>
      <button type="submit" class="button wide" disabled={shared.busy || phone.trim() === ""} data-testid="ask-code">{shared.busy ? "Asking…" : "Send me a code"}</button>
    </form>
  );
}

interface CodeProps {
  readonly shared: Shared;
  readonly account: Account;
  readonly phone: string;
  readonly registration: Registration;
  readonly again: () => Promise<void>;
  readonly onVerified: (isNew: boolean) => void;
  readonly onBack: () => void;
}

function CodeStep({ shared, account, phone, registration, again, onVerified, onBack }: CodeProps): JSX.Element {
  const [code, setCode] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const [wait, setWait] = useState(0);
  useEffect(() => {
    const until = Date.now() + registration.retryAfter_s * 1000;
    const tick = (): void => setWait(Math.max(0, Math.ceil((until - Date.now()) / 1000)));
    tick();
    const timer = setInterval(tick, 500);
    return () => clearInterval(timer);
  }, [registration]);
  useEffect(() => field.current?.focus(), []);
  const verify = (digits: string): void => shared.work(async () => {
    try {
      const { isNew } = await account.verify({ phone, code: digits, device: newDevice(), deviceLabel: deviceLabel() });
      onVerified(isNew);
    } catch (error) {
      setCode("");
      field.current?.focus();
      throw error;
    }
  });
  const onInput = (event: { readonly currentTarget: HTMLInputElement }): void => {
    const digits = event.currentTarget.value.replace(/\D/g, "").slice(0, 6);
    setCode(digits);
    shared.clear();
    if (digits.length === 6) verify(digits);
  };
  return (
    <form onSubmit={(event) => { event.preventDefault(); verify(code); }}>
      <p class="lead">The code for <strong class="nowrap">{spaced(phone)}</strong> is good for {Math.round(registration.expiresIn_s / 60)} minutes.</p>
      {registration.devCode !== null && (
        <p class="dev-code">
          <span>Development mode. The code is <strong data-testid="dev-code">{registration.devCode}</strong></span>
          <button type="button" class="link" onClick={() => verify(registration.devCode ?? "")} data-testid="use-dev-code">Use it</button>
        </p>
      )}
      <label class="field">
        <span>Code</span>
        <input ref={field} class="code" inputMode="numeric" autocomplete="one-time-code" value={code} onInput={onInput} placeholder="······" maxLength={7} data-testid="code" />
      </label>
      <button type="submit" class="button wide" disabled={shared.busy || code.length !== 6}>{shared.busy ? "Looking…" : "Sign in"}</button>
      <div class="two">
        <button type="button" class="link quiet" onClick={onBack}>Another number</button>
        <button type="button" class="link quiet" disabled={wait > 0 || shared.busy} onClick={() => shared.work(again)}>{wait > 0 ? `New code in ${wait} s` : "New code"}</button>
      </div>
    </form>
  );
}

function NameStep({ shared, account, onDone }: { readonly shared: Shared; readonly account: Account; readonly onDone: () => void }): JSX.Element {
  const [name, setName] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    shared.work(async () => {
      await account.updateMe({ name: name.trim() });
      onDone();
    });
  };
  return (
    <form onSubmit={submit}>
      <p class="lead">Welcome. How shall others see you?</p>
      <label class="field">
        <span>Name</span>
        <input ref={field} value={name} onInput={(event) => { setName(event.currentTarget.value); shared.clear(); }} autocomplete="name" maxLength={64} dir="auto" data-testid="name" />
      </label>
      <button type="submit" class="button wide" disabled={shared.busy || name.trim() === ""} data-testid="save-name">Start chatting</button>
      <button type="button" class="link quiet" onClick={onDone}>Later</button>
    </form>
  );
}

function TokenStep({ shared, onSignedIn }: { readonly shared: Shared; readonly onSignedIn: (session: Session) => void }): JSX.Element {
  const [token, setToken] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    try {
      onSignedIn(tokenSession(token.trim()));
    } catch {
      shared.fail("That is no token of this kind of server.");
    }
  };
  return (
    <form onSubmit={submit}>
      <p class="lead"><Icon name="link" size={18} /> A token from <code>switchboard token</code>. It stays in this tab, and the account's pages are not to be had with it.</p>
      <label class="field">
        <span>Token</span>
        <input type="password" value={token} onInput={(event) => { setToken(event.currentTarget.value); shared.clear(); }} autocomplete="off" autofocus data-testid="token" />
      </label>
      <button type="submit" class="button wide" disabled={token.trim() === ""} data-testid="use-token">Sign in</button>
    </form>
  );
}
