//! The Merkle tree over entries: RFC 6962 §2.1 with SHA-256, as transparency logs have it.
//!
//! ```text
//! leaf = SHA-256(00 ‖ entry)      node = SHA-256(01 ‖ left ‖ right)
//! ```

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;

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

fn root(tree: &MemoryBackedTree<Sha256, &[u8]>) -> [u8; 32] {
    (*tree.root().as_bytes()).into()
}
