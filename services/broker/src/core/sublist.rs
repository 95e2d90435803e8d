//! The subject index: who is interested in a subject, by a trie of tokens.

use super::ids::Build;
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

/// Identifies a subscription for the life of the process; later ones are larger.
pub type SubId = u64;

/// A trie over the tokens of patterns; it never holds an empty branch.
#[derive(Debug, Default)]
pub struct Sublist {
    root: Node,
    len: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    star: Option<Box<Node>>,
    tail: Leaf,
    here: Leaf,
}

/// Subscriptions of one pattern: any of them is found, picked by its place and removed at once, however many there are.
pub type Members = IndexSet<SubId, Build>;

#[derive(Debug, Default)]
struct Leaf {
    plain: Members,
    groups: Option<Box<IndexMap<Box<str>, Members>>>,
}

/// Everybody who is interested in one subject.
#[derive(Debug, Default)]
pub struct Matches<'a> {
    /// Subscriptions that each get the message.
    pub plain: Vec<SubId>,
    /// Queue groups, of whose members (all sets together) one gets the message.
    pub groups: IndexMap<&'a str, Vec<&'a Members>>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_none()
    }

    fn insert(&mut self, queue: Option<&str>, id: SubId) {
        let members = match queue {
            None => &mut self.plain,
            Some(queue) => self.groups.get_or_insert_default().entry(queue.into()).or_default(),
        };
        members.insert(id);
    }

    fn remove(&mut self, queue: Option<&str>, id: SubId) -> bool {
        let Some(queue) = queue else {
            let removed = self.plain.swap_remove(&id);
            shrink(&mut self.plain);
            return removed;
        };
        let Some(groups) = &mut self.groups else { return false };
        let Some(members) = groups.get_mut(queue) else { return false };
        let removed = members.swap_remove(&id);
        shrink(members);
        if members.is_empty() {
            groups.swap_remove(queue);
        }
        if groups.is_empty() {
            self.groups = None;
        }
        removed
    }

    fn collect<'a>(&'a self, into: &mut Matches<'a>) {
        into.plain.extend(&self.plain);
        for (name, members) in self.groups.iter().flat_map(|groups| groups.iter()) {
            into.groups.entry(&**name).or_default().push(members);
        }
    }
}

/// Gives memory back that was needed for many.
fn shrink(members: &mut Members) {
    if members.capacity() > 64 && members.len() < members.capacity() / 4 {
        members.shrink_to(members.len() * 2);
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_none() && self.tail.is_empty() && self.here.is_empty()
    }

    fn remove(&mut self, tokens: &mut std::str::Split<'_, char>, queue: Option<&str>, id: SubId) -> bool {
        match tokens.next() {
            None => self.here.remove(queue, id),
            Some(">") => self.tail.remove(queue, id),
            Some("*") => {
                let Some(star) = &mut self.star else { return false };
                let removed = star.remove(tokens, queue, id);
                if star.is_empty() {
                    self.star = None;
                }
                removed
            }
            Some(token) => {
                let Some(child) = self.children.get_mut(token) else { return false };
                let removed = child.remove(tokens, queue, id);
                if child.is_empty() {
                    self.children.remove(token);
                }
                removed
            }
        }
    }

    fn collect<'a>(&'a self, mut tokens: std::str::Split<'_, char>, into: &mut Matches<'a>) {
        let Some(token) = tokens.next() else {
            self.here.collect(into);
            return;
        };
        self.tail.collect(into);
        if let Some(star) = &self.star {
            star.collect(tokens.clone(), into);
        }
        if let Some(child) = self.children.get(token) {
            child.collect(tokens, into);
        }
    }

    fn any(&self, mut tokens: std::str::Split<'_, char>) -> bool {
        let Some(token) = tokens.next() else { return !self.here.is_empty() };
        !self.tail.is_empty()
            || self.star.as_ref().is_some_and(|star| star.any(tokens.clone()))
            || self.children.get(token).is_some_and(|child| child.any(tokens))
    }
}

impl Sublist {
    /// Adds a subscription; the pattern must be valid.
    pub fn insert(&mut self, pattern: &str, queue: Option<&str>, id: SubId) {
        let mut node = &mut self.root;
        for token in pattern.split('.') {
            match token {
                ">" => {
                    node.tail.insert(queue, id);
                    self.len += 1;
                    return;
                }
                "*" => node = node.star.get_or_insert_default(),
                token => {
                    node = node.children.entry(token.into()).or_default();
                }
            }
        }
        node.here.insert(queue, id);
        self.len += 1;
    }

    /// Removes a subscription that was added with the same pattern and queue.
    pub fn remove(&mut self, pattern: &str, queue: Option<&str>, id: SubId) {
        if self.root.remove(&mut pattern.split('.'), queue, id) {
            self.len -= 1;
        }
    }

    /// Everybody who is interested in the literal subject.
    pub fn matches(&self, subject: &str) -> Matches<'_> {
        let mut matches = Matches::default();
        self.root.collect(subject.split('.'), &mut matches);
        matches
    }

    /// Whether anybody is interested in the literal subject.
    pub fn has_interest(&self, subject: &str) -> bool {
        self.root.any(subject.split('.'))
    }

    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody subscribes to anything.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(list: &Sublist, subject: &str) -> Vec<SubId> {
        let mut found = list.matches(subject).plain;
        found.sort_unstable();
        found
    }

    #[test]
    fn a_subject_finds_literal_star_and_tail_subscriptions() {
        let mut list = Sublist::default();
        for (id, pattern) in ["a.b", "a.*", "a.>", ">", "*.b", "a", "a.b.c"].iter().enumerate() {
            list.insert(pattern, None, id as SubId);
        }
        assert_eq!(plain(&list, "a.b"), [0, 1, 2, 3, 4]);
        assert_eq!(plain(&list, "a"), [3, 5]);
        assert_eq!(plain(&list, "a.b.c"), [2, 3, 6]);
        assert!(list.has_interest("z"));
        list.remove(">", None, 3);
        assert!(!list.has_interest("z"));
        assert_eq!(list.len(), 6);
    }

    #[test]
    fn members_of_a_queue_group_are_found_together_across_patterns() {
        let mut list = Sublist::default();
        list.insert("a.b", Some("q"), 1);
        list.insert("a.*", Some("q"), 2);
        list.insert("a.*", Some("r"), 3);
        let found = list.matches("a.b");
        assert_eq!(found.groups.len(), 2);
        assert_eq!(
            found.groups.values().map(|sets| sets.iter().map(|set| set.len()).sum::<usize>()).sum::<usize>(),
            3
        );
    }

    #[test]
    fn removing_everything_leaves_no_branch_behind() {
        let mut list = Sublist::default();
        for id in 0..1000 {
            list.insert(&format!("x.{id}.*.y"), None, id);
        }
        for id in 0..1000 {
            list.remove(&format!("x.{id}.*.y"), None, id);
        }
        assert!(list.is_empty() && list.root.is_empty());
    }

    #[test]
    fn equal_subscriptions_and_members_of_groups_leave_one_by_one() {
        let mut list = Sublist::default();
        for id in 1..=1000 {
            list.insert("a.b", None, id);
            list.insert("a.b", Some("q"), id + 10_000);
        }
        for id in (1..=1000).rev().step_by(2) {
            list.remove("a.b", None, id);
            list.remove("a.b", None, id);
            list.remove("a.b", Some("q"), id + 10_000);
            list.remove("a.b", Some("r"), id);
        }
        assert_eq!(list.len(), 1000);
        assert_eq!(plain(&list, "a.b"), (1..=999).step_by(2).collect::<Vec<_>>());
        assert_eq!(list.matches("a.b").groups["q"][0].len(), 500);
    }
}
