/** The devices that are signed in, and signing others out. */

import { useCallback, useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import type { Device } from "@switchboard/client";
import { seenWords, stamp } from "../text/times.js";
import { visible } from "../text/visible.js";
import { Icon } from "./icons.js";
import { PanelHead, usePlace } from "./parts.js";
import { wordsOf } from "./words.js";

const isPhone = (label: string): boolean => /iPhone|Android/.test(label);

interface ItemProps {
  readonly device: Device;
  readonly onSignOut: (device: string) => Promise<void>;
}

function Item({ device, onSignOut }: ItemProps): JSX.Element {
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const name = visible(device.label ?? "") || visible(device.device);
  const since = device.createdAt === null ? "" : `signed in ${stamp(device.createdAt, new Date())}`;
  const seen = device.current ? "this device" : device.lastSeenAt === null ? "" : seenWords(device.lastSeenAt, new Date());
  const signOut = (): void => {
    setBusy(true);
    void onSignOut(device.device).finally(() => setBusy(false));
  };
  return (
    <li class="device" data-testid="device" data-current={device.current} data-device={device.device}>
      <Icon name={isPhone(name) ? "phone" : "device"} size={26} />
      <div>
        <strong dir="auto">{name}</strong>
        <span>{[seen, since].filter((words) => words !== "").join(" · ")}</span>
      </div>
      {device.current ? <span class="pill">Here</span>
        : !asking ? <button type="button" class="button quiet small" onClick={() => setAsking(true)} aria-label={`Sign out ${name}`} data-testid="sign-out-device">Sign out</button>
        : <button type="button" class="button danger small" disabled={busy} onClick={signOut} onBlur={() => setAsking(false)} aria-label={`Really sign out ${name}`} data-testid="confirm-sign-out-device">Really?</button>}
    </li>
  );
}

export function Devices(): JSX.Element {
  const { chat, router } = usePlace();
  const [devices, setDevices] = useState<readonly Device[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const load = useCallback(async (): Promise<void> => {
    try {
      const found = await chat.session.account?.devices() ?? [];
      setDevices([...found].sort((a, b) => Number(b.current) - Number(a.current) || (b.lastSeenAt ?? "").localeCompare(a.lastSeenAt ?? "")));
      setProblem(null);
    } catch (error) {
      setProblem(wordsOf(error));
    }
  }, []);
  useEffect(() => void load(), [load]);
  const signOut = async (device: string): Promise<void> => {
    try {
      await chat.session.account?.signOutDevice(device);
      chat.note("Signed out. Its page closes within seconds.");
    } catch (error) {
      setProblem(wordsOf(error));
    }
    await load();
  };
  return (
    <section class="panel" aria-label="Devices" data-testid="devices">
      <PanelHead title="Devices" onBack={() => router.go({ name: "settings" })} />
      <div class="panel-body">
        <p class="hint-text">Everything you write and get is on all of them.</p>
        {problem !== null && <p class="problem" role="alert">{problem} <button type="button" class="link" onClick={() => void load()}>Again</button></p>}
        {devices === null && problem === null && <span class="spinner" role="status" aria-label="The devices are coming" />}
        {devices !== null && <ul class="devices">{devices.map((device) => <Item key={device.device} device={device} onSignOut={signOut} />)}</ul>}
      </div>
    </section>
  );
}
