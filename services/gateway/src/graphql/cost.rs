//! What a query would cost, before anything is validated or expanded: a memoised walk over the parsed document.
//!
//! async-graphql checks its limits after it has expanded fragments, so that a small document can burn seconds. This
//! walk visits each selection once, whatever the fragments multiply to, and counts with saturating arithmetic.

use async_graphql::{
    Name, Positioned,
    parser::types::{Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet},
};
use std::collections::{BTreeMap, HashMap};

pub const DEPTH_MAX: u32 = 10;
pub const COST_MAX: u64 = 500;
/// Appearances of one root field, under whatever aliases.
pub const ALIASES_MAX: u64 = 15;
pub const FRAGMENTS_MAX: usize = 10;
/// Directives on one selection.
pub const DIRECTIVES_MAX: usize = 4;
const VARIABLES_MAX: usize = 50;
/// Limits of an introspection query, where it is allowed.
const INTROSPECTION_DEPTH_MAX: u32 = 25;
const INTROSPECTION_COST_MAX: u64 = 5_000;
/// A root field is a call to a service.
const ROOT_FIELD_COST: u64 = 5;
/// Root fields that are many calls.
const DEAR_FIELDS: [(&str, u64); 5] =
    [("statement", 50), ("portfolioPerformance", 50), ("realizedGains", 50), ("lots", 50), ("report", 150)];

/// A document that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the query is deeper than {DEPTH_MAX}")]
    Depth,
    #[error("the query costs more than {COST_MAX}")]
    Cost,
    #[error("the field {0} appears more than {ALIASES_MAX} times")]
    Aliases(String),
    #[error("the document has more than {FRAGMENTS_MAX} fragments")]
    Fragments,
    #[error("a selection has more than {DIRECTIVES_MAX} directives")]
    Directives,
    #[error("an operation has more than {VARIABLES_MAX} variables")]
    Variables,
    #[error("the fragment {0} contains itself")]
    Cycle(String),
    #[error("introspection is off")]
    Introspection,
}

/// What a selection set amounts to.
#[derive(Debug, Clone, Default)]
struct Sum {
    cost: u64,
    depth: u32,
    /// Fields at its own level and how often each appears.
    fields: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.cost = self.cost.saturating_add(other.cost);
        self.depth = self.depth.max(other.depth);
        for (name, count) in &other.fields {
            let entry = self.fields.entry(name.clone()).or_default();
            *entry = entry.saturating_add(*count);
        }
    }
}

struct Walk<'a> {
    document: &'a ExecutableDocument,
    /// `None` while a fragment is being walked: meeting it again is a cycle.
    fragments: HashMap<&'a Name, Option<Sum>>,
}

/// Refuses a document that costs too much. `introspection`: whether introspection is allowed.
pub fn check(document: &ExecutableDocument, introspection: bool) -> Result<(), Refused> {
    if document.fragments.len() > FRAGMENTS_MAX {
        return Err(Refused::Fragments);
    }
    let mut walk = Walk { document, fragments: HashMap::new() };
    let mut total: u64 = 0;
    let mut limit = COST_MAX;
    for (_, operation) in document.operations.iter() {
        let operation = &operation.node;
        if operation.variable_definitions.len() > VARIABLES_MAX {
            return Err(Refused::Variables);
        }
        directives(&operation.directives)?;
        let sum = walk.selection_set(&operation.selection_set.node)?;
        let meta = |name: &String| name == "__schema" || name == "__type";
        let asks_schema = sum.fields.keys().any(meta);
        if asks_schema && !introspection {
            return Err(Refused::Introspection);
        }
        let only_schema = asks_schema && sum.fields.keys().all(|n| meta(n) || n == "__typename");
        if only_schema {
            limit = INTROSPECTION_COST_MAX;
        }
        if sum.depth > if only_schema { INTROSPECTION_DEPTH_MAX } else { DEPTH_MAX } {
            return Err(Refused::Depth);
        }
        let mut roots: u64 = 0;
        for (name, count) in &sum.fields {
            if *count > ALIASES_MAX {
                return Err(Refused::Aliases(name.chars().take(40).collect()));
            }
            let dear =
                DEAR_FIELDS.iter().find(|(field, _)| field == name).map_or(ROOT_FIELD_COST, |(_, c)| *c);
            roots = roots.saturating_add(count.saturating_mul(dear));
        }
        total = total.saturating_add(sum.cost).saturating_add(roots);
        if total > limit {
            return Err(Refused::Cost);
        }
    }
    // Fragments that no operation uses are validated all the same.
    for name in document.fragments.keys() {
        let sum = walk.fragment(name)?;
        if sum.cost > limit {
            return Err(Refused::Cost);
        }
        if sum.depth > INTROSPECTION_DEPTH_MAX {
            return Err(Refused::Depth);
        }
    }
    Ok(())
}

/// The root fields of an operation and how often each appears, fragments included.
pub fn root_fields(
    document: &ExecutableDocument,
    operation: &OperationDefinition,
) -> Result<BTreeMap<String, u64>, Refused> {
    let mut walk = Walk { document, fragments: HashMap::new() };
    Ok(walk.selection_set(&operation.selection_set.node)?.fields)
}

fn directives(directives: &[Positioned<Directive>]) -> Result<(), Refused> {
    if directives.len() > DIRECTIVES_MAX { Err(Refused::Directives) } else { Ok(()) }
}

impl<'a> Walk<'a> {
    fn selection_set(&mut self, set: &'a SelectionSet) -> Result<Sum, Refused> {
        let mut sum = Sum::default();
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    let field = &field.node;
                    directives(&field.directives)?;
                    let inner = self.selection_set(&field.selection_set.node)?;
                    let own = 1 + field.directives.len() as u64;
                    sum.cost = sum.cost.saturating_add(own).saturating_add(inner.cost);
                    sum.depth = sum.depth.max(inner.depth.saturating_add(1));
                    let count = sum.fields.entry(field.name.node.to_string()).or_default();
                    *count = count.saturating_add(1);
                }
                Selection::InlineFragment(fragment) => {
                    directives(&fragment.node.directives)?;
                    let inner = self.selection_set(&fragment.node.selection_set.node)?;
                    sum.add(&inner);
                    sum.cost = sum.cost.saturating_add(1);
                }
                Selection::FragmentSpread(spread) => {
                    directives(&spread.node.directives)?;
                    let inner = self.fragment(&spread.node.fragment_name.node)?;
                    sum.add(&inner);
                    sum.cost = sum.cost.saturating_add(1);
                }
            }
            // No limit is larger: what is walked stays in proportion to what is allowed.
            if sum.cost > INTROSPECTION_COST_MAX {
                return Err(Refused::Cost);
            }
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &Name) -> Result<Sum, Refused> {
        // An unknown fragment is for the validation to refuse.
        let Some((name, definition)) = self.document.fragments.get_key_value(name) else {
            return Ok(Sum::default());
        };
        match self.fragments.get(name) {
            Some(Some(sum)) => return Ok(sum.clone()),
            Some(None) => return Err(Refused::Cycle(name.chars().take(40).collect())),
            None => {}
        }
        self.fragments.insert(name, None);
        directives(&definition.node.directives)?;
        let sum = self.selection_set(&definition.node.selection_set.node)?;
        self.fragments.insert(name, Some(sum.clone()));
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::parser::parse_query;
    use std::{fmt::Write as _, time::Instant};

    fn check_text(query: &str) -> Result<(), Refused> {
        check(&parse_query(query).unwrap(), true)
    }

    /// Fragments that double ten times over.
    fn bomb(levels: usize) -> String {
        let mut query = String::from("{ getOrders { ...f0 } }");
        for i in 0..levels {
            let next =
                if i + 1 == levels { "code".to_owned() } else { format!("...f{0} ...f{0} ...f{0}", i + 1) };
            write!(query, " fragment f{i} on OrdersResponse {{ {next} }}").unwrap();
        }
        query
    }

    #[test]
    fn a_fragment_bomb_is_refused_in_no_time() {
        let started = Instant::now();
        assert_eq!(check_text(&bomb(10)), Err(Refused::Cost));
        assert_eq!(check_text(&bomb(11)), Err(Refused::Fragments));
        // Expanded it would be 3^10 selections, and seconds.
        assert!(started.elapsed().as_millis() < 500, "{:?}", started.elapsed());
    }

    #[test]
    fn each_limit_is_refused_by_name() {
        let many = |n: usize| (0..n).fold(String::new(), |s, i| s + &format!("a{i}: health "));
        assert_eq!(check_text(&format!("{{ {} }}", many(15))), Ok(()));
        assert_eq!(check_text(&format!("{{ {} }}", many(16))), Err(Refused::Aliases("health".into())));
        assert!(check_text(&format!("{{ {} }}", many(5000))).is_err());
        let deep = |n: usize| format!("{}x{}", "{ a ".repeat(n), " }".repeat(n));
        assert_eq!(check_text(&deep(10)), Ok(()));
        assert_eq!(check_text(&deep(11)), Err(Refused::Depth));
        assert_eq!(check_text("{ a @b @b @b @b @b }"), Err(Refused::Directives));
        let cycle = "{ a { ...f } } fragment f on T { ...g } fragment g on T { ...f }";
        assert!(matches!(check_text(cycle), Err(Refused::Cycle(_))));
        let unused = format!("{{ health }} fragment f on T {{ {} }}", many(600));
        assert_eq!(check_text(&unused), Err(Refused::Cost));
        let wide = (0..501).fold(String::new(), |s, i| s + &format!("f{i} "));
        assert_eq!(check_text(&format!("{{ a {{ {wide} }} }}")), Err(Refused::Cost));
        assert_eq!(
            check(&parse_query("{ __schema { types { name } } }").unwrap(), false),
            Err(Refused::Introspection)
        );
        assert_eq!(check(&parse_query("{ __typename }").unwrap(), false), Ok(()));
    }

    #[test]
    fn the_usual_introspection_query_passes_where_it_is_allowed() {
        let query = "{ __schema { types { fields { type { ofType { ofType { ofType { ofType { ofType { ofType { \
                     name } } } } } } } } } } }";
        assert_eq!(check_text(query), Ok(()));
    }
}
