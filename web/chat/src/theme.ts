/** Light or dark, before anything is painted: loaded in the head. Without a choice of the person's the system's counts. */

import { applyTheme, storedTheme } from "./state/theme.js";

applyTheme(storedTheme());
