//! The pin of nixpkgs, from `flake.lock`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The one commit of nixpkgs that the flake takes its tools from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nixpkgs {
    /// Owner of the repository.
    pub owner: String,
    /// The repository.
    pub repo: String,
    /// The commit.
    pub rev: String,
    /// Hash of its files as Nix archives them.
    pub nar_hash: String,
}

#[derive(Deserialize)]
struct Lock {
    nodes: Nodes,
}

#[derive(Deserialize)]
struct Nodes {
    nixpkgs: Node,
}

#[derive(Deserialize)]
struct Node {
    locked: Nixpkgs,
}

/// The pin of the tree at `root`.
pub fn of_tree(root: &Path) -> Result<Nixpkgs> {
    let path = root.join("flake.lock");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lock: Lock = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(lock.nodes.nixpkgs.locked)
}
