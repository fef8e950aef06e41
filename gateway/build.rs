//! Puts the web chat into the binary: the files that `scripts/setup web` has built into `web/chat/dist`. Without them (no Node on this machine, or only the
//! server is wanted) the build goes on, and the server says at `/` how to get them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// One file of the folder, by its path from there; those beside it that end in `.br` and `.gz` are the same, compressed.
struct Found {
    path: String,
    brotli: bool,
    gzip: bool,
}

fn main() -> io::Result<()> {
    let dist = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?).join("../web/chat/dist");
    // the folder is in the repository, its files are not: a folder that is not there would be a change at each build
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut paths = Vec::new();
    if dist.is_dir() {
        walk(&dist, "", &mut paths)?;
    }
    paths.sort();
    let found: Vec<Found> = paths
        .iter()
        .filter(|path| !path.ends_with(".br") && !path.ends_with(".gz") && !path.ends_with("/.gitignore"))
        .map(|path| Found {
            path: path.clone(),
            brotli: paths.contains(&format!("{path}.br")),
            gzip: paths.contains(&format!("{path}.gz")),
        })
        .collect();
    if !found.iter().any(|file| file.path == "/index.html") {
        println!(
            "cargo::warning=the web chat is not in this build: run `scripts/setup web` before it (or scripts/start, which does)"
        );
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?).join("chat_files.rs");
    fs::write(out, table(&dist, &found))
}

fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// The files as Rust: `File { path, bytes, brotli, gzip }`, sorted by path.
fn table(dist: &Path, found: &[Found]) -> String {
    let mut text = String::from("static FILES: &[File] = &[\n");
    for Found { path, brotli, gzip } in found {
        let bytes = |suffix: &str| format!("include_bytes!({:?})", format!("{}{path}{suffix}", dist.display()));
        let optional = |there: bool, suffix: &str| if there { format!("Some({})", bytes(suffix)) } else { "None".to_owned() };
        let _ = writeln!(
            text,
            "    File {{ path: {path:?}, bytes: {}, brotli: {}, gzip: {} }},",
            bytes(""),
            optional(*brotli, ".br"),
            optional(*gzip, ".gz")
        );
    }
    text.push_str("];\n");
    text
}
