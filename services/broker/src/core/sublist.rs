//! The subject index: who is interested in a subject, by a trie of tokens.

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

#[derive(Debug, Default)]
struct Leaf {
    plain: Vec<SubId>,
    groups: Vec<(Box<str>, Vec<SubId>)>,
}

/// Everybody who is interested in one subject.
#[derive(Debug, Default)]
pub struct Matches<'a> {
    /// Subscriptions that each get the message.
    pub plain: Vec<SubId>,
    /// Queue groups, of whose members (all slices together) one gets the message.
    pub groups: Vec<(&'a str, Vec<&'a [SubId]>)>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    fn insert(&mut self, queue: Option<&str>, id: SubId) {
        let list = match queue {
            None => &mut self.plain,
            Some(queue) => {
                let at = self.groups.iter().position(|(name, _)| &**name == queue).unwrap_or_else(|| {
                    self.groups.push((queue.into(), Vec::new()));
                    self.groups.len() - 1
                });
                &mut self.groups[at].1
            }
        };
        if let Err(at) = list.binary_search(&id) {
            list.insert(at, id);
        }
    }

    fn remove(&mut self, queue: Option<&str>, id: SubId) -> bool {
        let list = match queue {
            None => &mut self.plain,
            Some(queue) => match self.groups.iter_mut().find(|(name, _)| &**name == queue) {
                Some((_, list)) => list,
                None => return false,
            },
        };
        let Ok(at) = list.binary_search(&id) else { return false };
        list.remove(at);
        if list.is_empty() {
            self.groups.retain(|(_, list)| !list.is_empty());
        }
        true
    }

    fn collect<'a>(&'a self, into: &mut Matches<'a>) {
        into.plain.extend_from_slice(&self.plain);
        for (name, list) in &self.groups {
            match into.groups.iter_mut().find(|(other, _)| *other == &**name) {
                Some((_, slices)) => slices.push(list),
                None => into.groups.push((name, vec![list])),
            }
        }
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
            found.groups.iter().map(|(_, s)| s.iter().map(|s| s.len()).sum::<usize>()).sum::<usize>(),
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
}
