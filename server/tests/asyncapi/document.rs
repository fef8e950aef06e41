//! The document, read: which frames there are in each direction, and whether one is as it should be.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Who says a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Server,
}

struct Message {
    key: String,
    validator: jsonschema::Validator,
}

pub(crate) struct Document {
    pub(crate) json: Value,
    messages: BTreeMap<(Side, String), Message>,
    held: RefCell<BTreeSet<String>>,
}

impl Document {
    pub(crate) fn new(json: Value) -> Self {
        assert_eq!(json["asyncapi"], "3.0.0");
        let mut messages = BTreeMap::new();
        for (key, side) in sides(&json) {
            let message = &json["components"]["messages"][&key];
            let name = message["name"].as_str().unwrap_or_else(|| panic!("{key} has no name")).to_owned();
            let mut schema = json!({"allOf": [message["payload"]], "components": {"schemas": json["components"]["schemas"]}});
            assert!(schema["allOf"][0].is_object(), "{key} has no payload");
            close(&mut schema);
            let options = jsonschema::draft7::options().should_validate_formats(true);
            let validator = options.build(&schema).unwrap_or_else(|why| panic!("{key}: {why}"));
            let known = messages.insert((side, name), Message { key: key.clone(), validator });
            assert!(known.is_none(), "two messages of one name: {key}");
        }
        let named: BTreeSet<_> = messages.values().map(|message| message.key.clone()).collect();
        let document = Self { json, messages, held: RefCell::default() };
        assert_eq!(document.messages(), named, "each message of the channel is in an operation");
        document
    }

    /// Every message of the channel.
    pub(crate) fn messages(&self) -> BTreeSet<String> {
        self.json["channels"]["socket"]["messages"].as_object().expect("messages").keys().cloned().collect()
    }

    /// Those that were held against it.
    pub(crate) fn held(&self) -> BTreeSet<String> {
        self.held.borrow().clone()
    }

    /// What is wrong with a frame.
    pub(crate) fn fault(&self, side: Side, frame: &Value) -> Option<String> {
        let name = frame["type"].as_str().unwrap_or_default().to_owned();
        let Some(message) = self.messages.get(&(side, name)) else { return Some("the document names no such frame".into()) };
        message.validator.iter_errors(frame).next().map(|why| why.to_string())
    }

    /// A frame went over the socket: it must be as the document says.
    pub(crate) fn holds(&self, side: Side, frame: &Value) {
        if let Some(fault) = self.fault(side, frame) {
            panic!("{side:?} said {frame}: {fault}");
        }
        let name = frame["type"].as_str().expect("a name").to_owned();
        self.held.borrow_mut().insert(self.messages[&(side, name)].key.clone());
    }

    /// The examples of each message.
    pub(crate) fn examples(&self, wanted: Side) -> Vec<(String, Value)> {
        let of = |message: &Message| {
            let examples = self.json["components"]["messages"][&message.key]["examples"].as_array();
            let examples = examples.filter(|list| !list.is_empty()).unwrap_or_else(|| panic!("{}: no example", message.key));
            examples.iter().map(|example| (message.key.clone(), example["payload"].clone())).collect::<Vec<_>>()
        };
        self.messages.iter().filter(|((side, _), _)| *side == wanted).flat_map(|(_, message)| of(message)).collect()
    }

    /// The fields a message must have.
    pub(crate) fn required(&self, key: &str) -> Vec<String> {
        let required = self.json["components"]["messages"][key]["payload"]["required"].as_array().expect("a list");
        required.iter().map(|field| field.as_str().expect("a name").to_owned()).collect()
    }

    /// Every reference of the document is to something in it.
    pub(crate) fn refs_lead_somewhere(&self) {
        let mut refs = Vec::new();
        collect_refs(&self.json, &mut refs);
        assert!(refs.len() > 100, "{}", refs.len());
        for to in refs {
            assert!(to.strip_prefix('#').and_then(|at| self.json.pointer(at)).is_some(), "{to} leads nowhere");
        }
    }
}

/// Which side says each message, by the operations: the server receives what a client says. A reply goes the other way.
fn sides(json: &Value) -> BTreeMap<String, Side> {
    let mut sides = BTreeMap::new();
    let mut put = |messages: &Value, side: Side| {
        for message in messages.as_array().expect("messages") {
            let key =
                message["$ref"].as_str().and_then(|to| to.strip_prefix("#/channels/socket/messages/")).expect("of the channel");
            let before = sides.insert(key.to_owned(), side);
            assert!(before.is_none_or(|before| before == side), "{key} is said by both");
        }
    };
    for (name, operation) in json["operations"].as_object().expect("operations") {
        match operation["action"].as_str() {
            Some("receive") => put(&operation["messages"], Side::Client),
            Some("send") => put(&operation["messages"], Side::Server),
            other => panic!("{name}: {other:?}"),
        }
        if operation.get("reply").is_some() {
            put(&operation["reply"]["messages"], Side::Server);
        }
    }
    sides
}

/// Clients ignore fields they do not know; here one that the document does not name is a fault.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("properties").is_some_and(|properties| properties.is_object())
                && object.get("type") == Some(&json!("object"))
            {
                object.insert("additionalProperties".into(), json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

fn collect_refs(value: &Value, refs: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            refs.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| collect_refs(value, refs));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_refs(value, refs)),
        _ => {}
    }
}
