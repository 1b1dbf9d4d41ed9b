//! The blocks of the KV cache: who holds them, what full ones contain, and which are kept for the
//! next prompt that begins alike.
//!
//! A full block's content is named by its tokens and by the content before it, compared token by
//! token: no hash decides what is the same. A named block is never written again, so any number of
//! sequences may hold it; a block that is not full belongs to one sequence alone. When nobody holds
//! a named block any more it is kept until its room is needed, the longest unused first.
//!
//! It knows numbers, not what the cache stores for them, nor who a sequence belongs to.

use std::collections::{BTreeMap, HashMap};

/// Under whose prompts a prefix is looked for: prefixes are shared within a root only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefixRoot(pub u64);

/// What comes before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Before {
    /// Nothing: it is the first of its root.
    Root(PrefixRoot),
    /// The content with this name. A name is given once and never again.
    Content(u64),
}

/// What a full block contains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    before: Before,
    tokens: Box<[u32]>,
}

#[derive(Debug, Default)]
struct Block {
    /// Tables that it is in.
    holders: u32,
    /// Its name and its content, once it is full and the only one of that content.
    named: Option<(u64, Content)>,
    /// Its place in the order of disuse, while nobody holds it and it is kept.
    unused_since: u64,
}

/// The block that a sequence is about to fill.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NextContent(Content);

/// All blocks of the cache.
#[derive(Debug)]
pub struct BlockPool {
    /// Without any content.
    free: Vec<u32>,
    blocks: Vec<Block>,
    /// Every named block.
    by_content: HashMap<Content, u32>,
    /// Named blocks that nobody holds, the longest unused first.
    unused: BTreeMap<u64, u32>,
    block_tokens: usize,
    names: u64,
    releases: u64,
    evictions: u64,
    keeps: bool,
}

/// The blocks of one sequence, in the order of its tokens. Given back with [`BlockPool::release`].
#[derive(Debug)]
pub struct BlockTable {
    blocks: Vec<u32>,
    /// How many of the first are named.
    named: usize,
    /// What comes before the first that is not.
    before: Before,
}

impl BlockTable {
    /// Numbers of the blocks: token `t` lies in `blocks()[t / block_tokens]`.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }
}

impl BlockPool {
    /// `total` blocks of `block_tokens` tokens each, all free. `keeps`: whether contents are kept
    /// and shared at all.
    ///
    /// # Panics
    /// When either is zero or `total` does not fit a block number; both come from checked config.
    #[must_use]
    pub fn new(total: usize, block_tokens: usize, keeps: bool) -> Self {
        assert!(total > 0 && block_tokens > 0, "a cache has blocks, and a block has tokens");
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        assert!(count < u32::MAX, "block numbers are 32 bits wide");
        let mut blocks = Vec::new();
        blocks.resize_with(total, Block::default);
        Self {
            // The lowest number is taken first: a quiet service touches few pages of the cache.
            free: (0..count).rev().collect(),
            blocks,
            by_content: HashMap::new(),
            unused: BTreeMap::new(),
            block_tokens,
            names: 0,
            releases: 0,
            evictions: 0,
            keeps,
        }
    }

    /// Tokens of a block.
    #[must_use]
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Blocks that `tokens` tokens lie in.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Blocks in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that sequences hold.
    #[must_use]
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }

    /// Blocks that nobody holds and that are kept for what they contain.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.unused.len()
    }

    /// Blocks that could be taken now, kept ones included.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len() + self.unused.len()
    }

    /// Kept blocks that made room, so far.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// An empty table whose prefixes are looked for under `root`.
    #[must_use]
    pub fn table(root: PrefixRoot) -> BlockTable {
        BlockTable { blocks: Vec::new(), named: 0, before: Before::Root(root) }
    }

    /// Of the blocks that [`reuse`](Self::reuse) would give an empty table for `tokens`: how many
    /// somebody holds already, so that they cost no room.
    #[must_use]
    pub fn shared_in_use(&self, root: PrefixRoot, tokens: &[u32]) -> usize {
        let mut before = Before::Root(root);
        let mut held = 0;
        for tokens in tokens.chunks_exact(self.block_tokens) {
            let Some((block, name)) = self.find(before, tokens) else { break };
            held += usize::from(self.blocks[block as usize].holders > 0);
            before = Before::Content(name);
        }
        held
    }

    /// Extends `table` by the blocks that contain what follows in `tokens` (all tokens from the
    /// sequence's first), as far as whole ones are known. Gives the tokens that the table has then.
    pub fn reuse(&mut self, table: &mut BlockTable, tokens: &[u32]) -> usize {
        let at = table.named * self.block_tokens;
        if table.blocks.len() == table.named && at <= tokens.len() {
            for tokens in tokens[at..].chunks_exact(self.block_tokens) {
                let Some((block, name)) = self.find(table.before, tokens) else { break };
                self.hold(block);
                table.blocks.push(block);
                table.named += 1;
                table.before = Before::Content(name);
            }
        }
        table.named * self.block_tokens
    }

    /// Makes `table` long enough for `tokens` tokens, at the cost of kept blocks if it must be.
    /// False, and nothing is changed, when there are too few blocks.
    #[must_use]
    pub fn grow(&mut self, table: &mut BlockTable, tokens: usize) -> bool {
        let missing = self.blocks_for(tokens).saturating_sub(table.blocks.len());
        if missing > self.available() {
            return false;
        }
        for _ in 0..missing {
            let Some(block) = self.free.pop().or_else(|| self.evict()) else { return false };
            self.blocks[block as usize].holders = 1;
            table.blocks.push(block);
        }
        true
    }

    /// Whether [`grow`](Self::grow) would cost no kept block.
    pub(super) fn has_free_for(&self, table: &BlockTable, tokens: usize) -> bool {
        self.blocks_for(tokens).saturating_sub(table.blocks.len()) <= self.free.len()
    }

    /// What the block will contain that a sequence with these `tokens` fills next, and whether it
    /// has not begun to: `computed` of the tokens are in the cache. None for a block that will not
    /// be whole, or whose last token is the last of all, which is always computed.
    pub(super) fn next_content(
        &self,
        table: &BlockTable,
        computed: usize,
        tokens: &[u32],
    ) -> Option<(NextContent, bool)> {
        let at = table.named * self.block_tokens;
        if !self.keeps || tokens.len() <= at + self.block_tokens {
            return None;
        }
        let tokens = &tokens[at..at + self.block_tokens];
        let content = Content { before: table.before, tokens: tokens.into() };
        Some((NextContent(content), computed == at))
    }

    /// `tokens`, all from the sequence's first, are in the cache now: names the blocks that are
    /// full. Where another block has the same content already, the table takes that one.
    ///
    /// # Panics
    /// When the table is too short for them: a defect of the scheduler.
    pub fn fill(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        assert!(table.blocks.len() >= self.blocks_for(tokens.len()), "tokens without a block");
        if !self.keeps {
            return;
        }
        let at = table.named * self.block_tokens;
        for tokens in tokens[at.min(tokens.len())..].chunks_exact(self.block_tokens) {
            let own = table.blocks[table.named];
            let name = if let Some((block, name)) = self.find(table.before, tokens) {
                self.hold(block);
                table.blocks[table.named] = block;
                self.let_go(own);
                name
            } else {
                self.names += 1;
                let content = Content { before: table.before, tokens: tokens.into() };
                self.by_content.insert(content.clone(), own);
                self.blocks[own as usize].named = Some((self.names, content));
                self.names
            };
            table.named += 1;
            table.before = Before::Content(name);
        }
    }

    /// Takes the blocks back; named ones are kept.
    pub fn release(&mut self, table: BlockTable) {
        // The last first: what comes after a content is useless without it, so it goes before it.
        for block in table.blocks.into_iter().rev() {
            self.let_go(block);
        }
    }

    fn find(&self, before: Before, tokens: &[u32]) -> Option<(u32, u64)> {
        if !self.keeps {
            return None;
        }
        let content = Content { before, tokens: tokens.into() };
        let block = *self.by_content.get(&content)?;
        let (name, _) = self.blocks[block as usize].named.as_ref()?;
        Some((block, *name))
    }

    fn hold(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        if entry.holders == 0 {
            self.unused.remove(&entry.unused_since);
        }
        entry.holders += 1;
    }

    fn let_go(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        assert!(block.holders > 0, "a block is given back by who holds it");
        block.holders -= 1;
        if block.holders > 0 {
            return;
        }
        if block.named.is_some() {
            self.releases += 1;
            block.unused_since = self.releases;
            self.unused.insert(self.releases, number);
        } else {
            self.free.push(number);
        }
    }

    /// The kept block that was not used for the longest time, without its content.
    fn evict(&mut self) -> Option<u32> {
        let (_, block) = self.unused.pop_first()?;
        if let Some((_, content)) = self.blocks[block as usize].named.take() {
            self.by_content.remove(&content);
        }
        self.evictions += 1;
        Some(block)
    }
}
