// The API's document as a page to try it. Everything shown is set as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const find = (id) => document.getElementById(id);
let described;

function resolve(schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], described);
}

/** A value to begin with: an example, or something of the right type. */
function sample(given, depth = 0) {
  const schema = resolve(given);
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  const some = (schema.oneOf ?? schema.anyOf ?? schema.allOf)?.find((one) => one.type !== "null");
  if (some) return sample(some, depth);
  const type = [schema.type].flat().find((one) => one !== "null");
  if (type === "object" && depth < 5) {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, part]) => [name, sample(part, depth + 1)]));
  }
  if (type === "array") return schema.items ? [sample(schema.items, depth + 1)] : [];
  return { string: "", integer: schema.minimum ?? 0, number: 0, boolean: false }[type] ?? null;
}

function field(parameter) {
  const [label, input] = [document.createElement("label"), document.createElement("input")];
  const where = parameter.in === "path" ? "" : ` (${parameter.in})`;
  label.append(`${parameter.name}${where}${parameter.required ? "" : ", optional"} `, input);
  input.required = Boolean(parameter.required);
  input.title = parameter.description ?? "";
  input.autocomplete = "off";
  input.dataset.testid = `parameter-${parameter.name}`;
  return { parameter, label, input };
}

async function send({ method, path, fields, body }) {
  const headers = {};
  const query = new URLSearchParams();
  let target = path;
  for (const { parameter, input } of fields) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value !== "" && parameter.in === "query") query.set(parameter.name, input.value);
    else if (input.value !== "") headers[parameter.name] = input.value;
  }
  const token = find("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const search = query.size ? `?${query}` : "";
  const answer = await fetch(target + search, { method: method.toUpperCase(), headers, body });
  return { status: `${answer.status} ${answer.statusText}`, text: await answer.text() };
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Later requests use the tokens of a log-in, and its refresh token stands where it is asked for next. */
function remember(text) {
  let data;
  try {
    data = JSON.parse(text).data;
  } catch {
    return;
  }
  if (data?.access_token) find("token").value = data.access_token;
  for (const area of data?.refresh_token ? document.querySelectorAll("textarea") : []) {
    try {
      const body = JSON.parse(area.value);
      if ("refresh_token" in body) area.value = JSON.stringify({ ...body, refresh_token: data.refresh_token }, null, 2);
    } catch {
      // somebody is writing in it
    }
  }
}

function show(method, path, operation) {
  const part = find("operation").content.cloneNode(true);
  const at = (selector) => part.querySelector(selector);
  const [details, form, answer, area] = [at("details"), at("form"), at(".answer"), at("textarea")];
  details.dataset.testid = `${method} ${path}`;
  at(".method").textContent = method.toUpperCase();
  at(".method").classList.add(method);
  at(".path").textContent = path;
  at(".summary").textContent = operation.summary ?? "";
  at(".description").textContent = operation.description ?? "";
  const fields = (operation.parameters ?? []).map(field);
  at(".parameters").append(...fields.map(({ label }) => label));
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  if (schema) {
    at(".body").hidden = false;
    area.value = JSON.stringify(sample(schema), null, 2);
  }
  for (const [status, response] of Object.entries(operation.responses ?? {}).sort()) {
    const item = document.createElement("li");
    item.textContent = `${status} ${response.description}`;
    at(".responses").append(item);
  }
  const [status, text] = [at(".status"), at("pre")];
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.hidden = false;
    status.textContent = "…";
    text.textContent = "";
    try {
      const got = await send({ method, path, fields, body: schema ? area.value : undefined });
      [status.textContent, text.textContent] = [got.status, pretty(got.text)];
      remember(got.text);
    } catch (error) {
      status.textContent = String(error);
    }
  });
  return part;
}

async function start() {
  const list = find("operations");
  try {
    described = await (await fetch("/v1/openapi.json")).json();
  } catch (error) {
    list.textContent = `The document did not come: ${error}`;
    return;
  }
  find("title").textContent = `${described.info.title} API ${described.info.version}`;
  find("about").textContent = described.info.description ?? "";
  const groups = new Map((described.tags ?? []).map((tag) => [tag.name, { tag, parts: [] }]));
  for (const [path, item] of Object.entries(described.paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const name = item[method].tags?.[0] ?? "Other";
      if (!groups.has(name)) groups.set(name, { tag: { name }, parts: [] });
      groups.get(name).parts.push(show(method, path, item[method]));
    }
  }
  for (const { tag, parts } of groups.values()) {
    const [section, heading, about] = ["section", "h2", "p"].map((kind) => document.createElement(kind));
    heading.textContent = tag.name;
    about.textContent = tag.description ?? "";
    section.append(heading, about, ...parts);
    list.append(section);
  }
  list.setAttribute("aria-busy", "false");
}

start();
