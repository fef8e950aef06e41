/** The signs on buttons, as lines of the current colour. */

import type { JSX } from "preact";

const PATHS = {
  back: "M15 5l-7 7 7 7",
  send: "M4 12l16-7.5-5.2 15.5-3.6-6.2zM11.2 13.8L20 4.5",
  plus: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 1 0-14 7 7 0 0 1 0 14zM20 20l-4-4",
  close: "M6 6l12 12M18 6L6 18",
  reply: "M10 7L4 12.5 10 18v-3.6c5 0 8 1.4 10 4.6-.6-5.6-4-9-10-9.4z",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  down: "M6 10l6 6 6-6",
  device: "M4 5h16v10H4zM9 19h6M12 15v4",
  phone: "M8 3h8v18H8zM11.5 18h1",
  right: "M9 6l6 6-6 6",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6L7 7M17 17l1.4 1.4M5.6 18.4L7 17M17 7l1.4-1.4",
  moon: "M20 14.5A8 8 0 1 1 9.5 4 6.5 6.5 0 0 0 20 14.5z",
  half: "M12 20a8 8 0 1 1 0-16zM12 4a8 8 0 0 1 0 16",
  out: "M14 7V4H5v16h9v-3M10 12h11M18 9l3 3-3 3",
  check: "M5 12.5l4.5 4.5L19 7.5",
  clock: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM12 8v4.5l3 1.8",
  alert: "M12 4l9 16H3zM12 10v4.5M12 17.2v.3",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  keyboard: "M3 7h18v11H3zM7 11h.01M11 11h.01M15 11h.01M8 14.5h8",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  link: "M10 14a4 4 0 0 1 0-5.6l2.8-2.8a4 4 0 0 1 5.6 5.6L17 12.6M14 10a4 4 0 0 1 0 5.6l-2.8 2.8a4 4 0 0 1-5.6-5.6L7 11.4",
} as const;

export type IconName = keyof typeof PATHS;

/** A sign; what it means is said by the button it is on. */
export function Icon({ name, size = 22 }: { readonly name: IconName; readonly size?: number }): JSX.Element {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.9" stroke-linecap="round"
      stroke-linejoin="round" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark of the product: two lines plugged together. */
export function Logo({ size = 40 }: { readonly size?: number }): JSX.Element {
  return (
    <svg width={size} height={size} viewBox="0 0 64 64" aria-hidden="true" focusable="false">
      <rect class="logo-back" width="64" height="64" rx="16" />
      <path class="logo-line" d="M20 18v9c0 7 24 3 24 10v9" fill="none" stroke-width="5.5" stroke-linecap="round" />
      <circle class="logo-dot" cx="20" cy="18" r="6.5" />
      <circle class="logo-dot" cx="44" cy="46" r="6.5" />
      <circle class="logo-soft" cx="44" cy="18" r="5" />
      <circle class="logo-soft" cx="20" cy="46" r="5" />
    </svg>
  );
}
