//! The Merkle tree over entries: RFC 6962 §2.1 with SHA-256, as transparency logs have it.
//!
//! ```text
//! leaf = SHA-256(00 ‖ entry)      node = SHA-256(01 ‖ left ‖ right)
//! ```

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{InclusionProof, RootHash};
use sha2::Sha256;

use super::batch::{MAX_BATCH, MAX_NUMBER};

/// As many entries as a log can have (FORMAT-T3).
const MAX_LEAVES: u64 = MAX_NUMBER * MAX_BATCH as u64;

/// The root hash of the tree over `leaves`.
#[must_use]
pub fn root_of<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    roots_of(leaves, u64::MAX).0
}

/// The root hash of the tree over `leaves`, and of the one over the first `prefix` of them, if there are as many.
pub(super) fn roots_of<'a>(
    leaves: impl IntoIterator<Item = &'a [u8]>,
    prefix: u64,
) -> ([u8; 32], Option<[u8; 32]>) {
    let mut tree = MemoryBackedTree::<Sha256, &[u8]>::new();
    let mut at_prefix = (prefix == 0).then(|| root(&tree));
    for leaf in leaves {
        tree.push(leaf);
        if tree.len() == prefix {
            at_prefix = Some(root(&tree));
        }
    }
    (root(&tree), at_prefix)
}

/// The hashes from the sibling of leaf `index` up to the root's child: the proof that the leaf is in the tree.
///
/// # Panics
/// If there is no such leaf.
pub(super) fn path_of<'a>(leaves: impl IntoIterator<Item = &'a [u8]>, index: usize) -> Vec<[u8; 32]> {
    let mut tree = MemoryBackedTree::<Sha256, &[u8]>::new();
    leaves.into_iter().for_each(|leaf| tree.push(leaf));
    let proof = tree.prove_inclusion(index);
    proof.as_bytes().chunks_exact(32).filter_map(|hash| hash.try_into().ok()).collect()
}

/// Whether `path` proves that the tree of this root and size has this leaf at this place.
pub(super) fn has(root: &[u8; 32], size: u64, leaf: &[u8], index: u64, path: &[[u8; 32]]) -> bool {
    // `ct_merkle` counts inner nodes as well, up to twice as many as leaves, and panics where it can't.
    if size > MAX_LEAVES {
        return false;
    }
    let root = RootHash::<Sha256>::new((*root).into(), size);
    let Ok(proof) = InclusionProof::try_from_bytes(path.concat()) else { return false };
    root.verify_inclusion(&leaf, index, &proof).is_ok()
}

fn root(tree: &MemoryBackedTree<Sha256, &[u8]>) -> [u8; 32] {
    (*tree.root().as_bytes()).into()
}
