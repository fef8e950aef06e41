/** Errors in words a person can use. */

import { ApiError, ClientError } from "@switchboard/client";

const WORDS: Readonly<Record<string, string>> = {
  network: "The server cannot be reached.", bad_phone: "That is no phone number with its country, such as +49 151 23456789.",
  bad_code: "That code is wrong or too old.", unauthenticated: "This device is signed out.", forbidden: "That is not allowed.",
  not_found: "There is no such thing.", unavailable: "The server cannot do that now.", not_api: "The server gave an answer this page does not understand.",
};

/** `in 2 minutes`. */
export function inWords(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  if (seconds < 90) return `in ${seconds} second${seconds === 1 ? "" : "s"}`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 90 ? `in ${minutes} minutes` : `in ${Math.ceil(minutes / 60)} hours`;
}

export function wordsOf(error: unknown): string {
  if (error instanceof ApiError) {
    if (error.status === 501) return "This server has no accounts.";
    if (error.code === "rate") return `Too often: try again ${inWords(error.retryAfter_ms)}.`;
    return WORDS[error.code] ?? `The server said: ${error.message}`;
  }
  if (error instanceof ClientError) return WORDS[error.code] ?? error.message;
  return "Something went wrong on this page.";
}
