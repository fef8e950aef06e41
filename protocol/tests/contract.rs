//! The published `.proto` and the committed code that was generated from it say the same. `PROTO_WRITE=1` writes the code anew.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use prost_build::Module;

#[test]
fn the_generated_code_is_what_the_contract_says() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = protox::compile(["switchboard/v1/switchboard.proto"], [crate_root.join("proto")]).unwrap();
    let module = Module::from_protobuf_package_name("switchboard.v1");
    let requests = contract.file.into_iter().map(|file| (module.clone(), file)).collect();
    let generated = prost_build::Config::new().generate(requests).unwrap().remove(&module).unwrap();
    let path = crate_root.join("src/codec/proto/v1.rs");
    if std::env::var_os("PROTO_WRITE").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let differing = committed.lines().zip(generated.lines()).position(|(one, other)| one != other);
    assert!(
        committed == generated,
        "{} is not what the .proto says (first difference in line {:?}): PROTO_WRITE=1 cargo test -p protocol --test contract",
        path.display(),
        differing.map(|line| line + 1)
    );
}
