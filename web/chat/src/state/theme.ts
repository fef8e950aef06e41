/** Light, dark, or as the system is. */

/** What a person chose. */
export type Theme = "system" | "light" | "dark";

const NAME = "switchboard.chat.theme";

export function storedTheme(): Theme {
  try {
    const stored = localStorage.getItem(NAME);
    return stored === "light" || stored === "dark" ? stored : "system";
  } catch {
    return "system";
  }
}

export function applyTheme(theme: Theme): void {
  document.documentElement.dataset["theme"] = theme;
}

export function storeTheme(theme: Theme): void {
  applyTheme(theme);
  try {
    localStorage.setItem(NAME, theme);
  } catch {
    // then it is as long as the page lives
  }
}
