/** Phone numbers and user ids as people type them. */

/** Who is meant: a number in E.164, a user's id, or neither. */
export type Who = { readonly phone: string } | { readonly user: string } | null;

/** A phone number in E.164 from what was typed, or `null`: `+49 151 / 12-34 56 78` and `0049…` will do. */
export function phoneOf(typed: string): string | null {
  const number = typed.replace(/[\s\-().\/\u00a0]/g, "").replace(/^00/, "+");
  return /^\+[1-9][0-9]{6,14}$/.test(number) ? number : null;
}

/** A phone number if it begins like one, else a user's id. */
export function whoOf(typed: string): Who {
  const text = typed.trim();
  const phone = /^(\+|00)/.test(text) ? phoneOf(text) : null;
  if (phone !== null) return { phone };
  return /^[1-9][0-9]{0,18}$/.test(text) ? { user: text } : null;
}

/** A number in groups, to be read: the country's digits are not told apart, so groups of three from the end. */
export function spaced(phone: string): string {
  const digits = phone.replace(/^\+/, "");
  return `+${digits.slice(0, 2)} ${digits.slice(2).replace(/(\d{3})(?=\d{2})/g, "$1 ")}`.trim();
}
