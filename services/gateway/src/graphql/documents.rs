//! Documents that ran before, by their text: parsed, costed and validated once.

use super::{
    cost,
    error::{PARSE_FAILED, VALIDATION_FAILED},
    inputs::Inputs,
    lexical,
    mutation::ORDER_FIELDS,
    price,
    transport::Invalid,
};
use async_graphql::{
    Name, Positioned, Value, Variables,
    indexmap::IndexMap,
    parser::{
        parse_query,
        types::{
            Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet,
        },
    },
};
use std::{fmt, sync::Arc};

/// What all remembered documents may weigh together, bytes; the one that was not used for longest goes first.
const WEIGHT_MAX: u64 = 8 * 1024 * 1024;
/// What the parser makes of one byte of text, at most: two of them can be a field.
const BYTES_PER_BYTE: usize = 100;
/// The lightest document counts as this much, so at most 4,096 are remembered.
const WEIGHT_MIN: usize = 2 * 1024;

/// A document that was parsed and does not cost too much.
#[derive(Debug)]
pub struct Parsed {
    pub document: ExecutableDocument,
    operations: Vec<(Option<Name>, Shape)>,
    /// The keys of each operation's answer, in the order in which they were asked for.
    root_keys: Vec<Vec<Key>>,
    /// Each variable in an argument is the argument: what was validated without looking into them stays valid.
    variables_are_whole: bool,
    weight: u32,
}

/// A key of an answer, and the keys below it, each once.
#[derive(Debug)]
struct Key {
    name: Name,
    below: Vec<Name>,
}

/// What is asked of one operation before it runs.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub kind: OperationType,
    /// Orders that the root fields send, and whether every root field does.
    pub orders: u64,
    pub only_orders: bool,
}

impl Parsed {
    /// Parses a text, and refuses it before anything expensive is done with it.
    pub fn read(text: &str, introspection: bool) -> Result<Self, Invalid> {
        if text.trim().is_empty() {
            return Err(Invalid::new(PARSE_FAILED, "query must not be blank"));
        }
        let refused = |e: cost::Refused| Invalid::new(VALIDATION_FAILED, e.to_string());
        lexical::check(text).map_err(|e| Invalid::new(VALIDATION_FAILED, e.to_string()))?;
        let document = parse_query(text).map_err(|e| Invalid::new(PARSE_FAILED, e.to_string()))?;
        cost::check(&document, introspection).map_err(refused)?;
        let (mut operations, mut root_keys) = (Vec::new(), Vec::new());
        for (name, operation) in document.operations.iter() {
            root_keys.push(keys_of(&document, &operation.node.selection_set.node));
            operations.push((name.cloned(), shape(&document, &operation.node).map_err(refused)?));
        }
        let weight = text.len().saturating_mul(BYTES_PER_BYTE).max(WEIGHT_MIN);
        Ok(Self {
            variables_are_whole: variables_are_whole(&document),
            operations,
            root_keys,
            document,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
        })
    }

    /// The operation that a request names; the only one where it names none.
    pub fn operation(&self, name: Option<&str>) -> Result<Shape, Invalid> {
        let found = match name {
            None => self.operations.first().filter(|_| self.operations.len() == 1),
            Some(name) => self.operations.iter().find(|(n, _)| n.as_deref() == Some(name)),
        };
        let unknown = "operationName must name an operation of the document";
        found.map(|(_, shape)| *shape).ok_or_else(|| Invalid::new(VALIDATION_FAILED, unknown))
    }

    /// The definition of the operation that a request names, and its place among all.
    fn definition(&self, name: Option<&str>) -> Option<(usize, &OperationDefinition)> {
        let named = |n: Option<&Name>| name.is_none() || n.map(Name::as_str) == name;
        let mut operations = self.document.operations.iter().enumerate();
        operations.find(|(_, (n, _))| named(*n)).map(|(i, (_, operation))| (i, &operation.node))
    }

    /// What the operation that a request names asks for, in rows.
    pub fn price(&self, name: Option<&str>, variables: &Variables) -> u64 {
        let found = self.definition(name);
        found.map_or(0, |(_, operation)| price::of(&self.document, operation, variables))
    }

    /// Puts the keys of an operation's answer, and those of each root field's payload, into the order in which they were
    /// asked for: who has to wait for something is done later than who has not.
    pub fn put_in_order(&self, name: Option<&str>, data: &mut Value) {
        let keys = self.definition(name).and_then(|(i, _)| self.root_keys.get(i));
        let (Some(keys), Value::Object(fields)) = (keys, data) else { return };
        let place = |key: &Name| keys.iter().position(|k| k.name == *key).unwrap_or(usize::MAX);
        sort(fields, place);
        for (key, payload) in fields.iter_mut() {
            if let (Some(key), Value::Object(payload)) = (keys.get(place(key)), payload) {
                sort(payload, |name| key.below.iter().position(|k| k == name).unwrap_or(usize::MAX));
            }
        }
    }

    /// Refuses a request without a variable that has to be there: nothing of it is run.
    pub fn check_variables(&self, name: Option<&str>, variables: &Variables) -> Result<(), Invalid> {
        let definitions = self.definition(name).into_iter().flat_map(|(_, o)| &o.variable_definitions);
        for definition in definitions.map(|definition| &definition.node) {
            let (name, kind) = (&definition.name.node, &definition.var_type.node);
            let is_missing = !variables.contains_key(name) && definition.default_value.is_none();
            if is_missing && !kind.nullable {
                let text = format!("the variable ${name} of type {kind} is missing");
                return Err(Invalid::new(VALIDATION_FAILED, text));
            }
        }
        Ok(())
    }

    /// Whether the validation, which once found nothing, would find nothing with these variables either.
    ///
    /// Of async-graphql's rules one reads the variables, `ArgumentsOfCorrectType`: it puts them into the arguments and
    /// holds those against the schema. `VariableInAllowedPosition`, which does not read them, has found the declared type
    /// of each to be at least as strict as its argument's; so values that fit the declared types fit the arguments. In
    /// doubt the answer is no, and the request is validated in full.
    fn would_pass(&self, variables: &Variables, inputs: &Inputs) -> bool {
        if variables.is_empty() {
            return true;
        }
        let declared = || self.document.operations.iter().flat_map(|(_, o)| &o.node.variable_definitions);
        self.variables_are_whole
            && declared().all(|definition| {
                let definition = &definition.node;
                match variables.get(&definition.name.node) {
                    None => true,
                    // A default makes a nullable variable fit where null does not.
                    Some(Value::Null) => false,
                    Some(value) => inputs.fit(&definition.var_type.node, value),
                }
            })
    }
}

fn shape(document: &ExecutableDocument, operation: &OperationDefinition) -> Result<Shape, cost::Refused> {
    let fields = cost::root_fields(document, operation)?;
    let count = |orders: bool| {
        let of_kind = fields.iter().filter(|(name, _)| ORDER_FIELDS.contains(&name.as_str()) == orders);
        of_kind.map(|(_, n)| *n).sum::<u64>()
    };
    let (orders, others) = (count(true), count(false));
    Ok(Shape { kind: operation.ty, orders, only_orders: orders > 0 && others == 0 })
}

/// Most answers stand in order as they are.
fn sort(fields: &mut IndexMap<Name, Value>, place: impl Fn(&Name) -> usize) {
    if !fields.keys().map(&place).is_sorted() {
        fields.sort_by_cached_key(|name, _| place(name));
    }
}

/// The keys of an answer, each once, fragments included. The document was found to be small before.
fn keys_of(document: &ExecutableDocument, set: &SelectionSet) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for field in fields_of(document, set) {
        let name = &field.response_key().node;
        let at = keys.iter().position(|key| key.name == *name).unwrap_or(keys.len());
        if at == keys.len() {
            keys.push(Key { name: name.clone(), below: Vec::new() });
        }
        let below = &mut keys[at].below;
        for field in fields_of(document, &field.selection_set.node) {
            let name = &field.response_key().node;
            if !below.contains(name) {
                below.push(name.clone());
            }
        }
    }
    keys
}

/// The fields of a selection set, those of its fragments where they are spread.
fn fields_of<'a>(document: &'a ExecutableDocument, set: &'a SelectionSet) -> Vec<&'a Field> {
    let mut fields = Vec::new();
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(fragment) => {
                fields.extend(fields_of(document, &fragment.node.selection_set.node));
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    fields.extend(fields_of(document, &fragment.node.selection_set.node));
                }
            }
        }
    }
    fields
}

type Argument = (Positioned<Name>, Positioned<async_graphql_value::Value>);

/// Whether an argument is a constant, or one variable and nothing else.
fn is_whole((_, value): &Argument) -> bool {
    matches!(value.node, async_graphql_value::Value::Variable(_)) || value.node.clone().into_const().is_some()
}

fn variables_are_whole(document: &ExecutableDocument) -> bool {
    fn in_directives(directives: &[Positioned<Directive>]) -> bool {
        directives.iter().flat_map(|d| &d.node.arguments).all(is_whole)
    }
    fn in_selections(set: &SelectionSet) -> bool {
        set.items.iter().all(|selection| match &selection.node {
            Selection::Field(field) => {
                in_directives(&field.node.directives)
                    && field.node.arguments.iter().all(is_whole)
                    && in_selections(&field.node.selection_set.node)
            }
            Selection::InlineFragment(fragment) => {
                in_directives(&fragment.node.directives) && in_selections(&fragment.node.selection_set.node)
            }
            Selection::FragmentSpread(spread) => in_directives(&spread.node.directives),
        })
    }
    document.operations.iter().all(|(_, operation)| {
        in_directives(&operation.node.directives) && in_selections(&operation.node.selection_set.node)
    }) && document.fragments.values().all(|fragment| {
        in_directives(&fragment.node.directives) && in_selections(&fragment.node.selection_set.node)
    })
}

/// The documents that ran without an error. Whatever was refused is read again each time it comes.
pub struct Documents {
    known: moka::sync::Cache<String, Arc<Parsed>>,
    inputs: Inputs,
    introspection: bool,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Documents")
    }
}

/// A document as a request brings it.
#[derive(Debug)]
pub struct Found {
    pub parsed: Arc<Parsed>,
    /// It ran before.
    pub is_known: bool,
    text: String,
}

impl Documents {
    /// `sdl` is the schema; `introspection`: whether introspection is allowed.
    pub fn new(sdl: &str, introspection: bool) -> Self {
        Self::with_room(sdl, introspection, WEIGHT_MAX)
    }

    fn with_room(sdl: &str, introspection: bool, weight_max: u64) -> Self {
        let known = moka::sync::Cache::builder()
            .max_capacity(weight_max)
            .weigher(|_, parsed: &Arc<Parsed>| parsed.weight)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Self { known, inputs: Inputs::of(sdl), introspection }
    }

    /// Whether a text is remembered: it need not be read.
    pub fn knows(&self, text: &str) -> bool {
        self.known.contains_key(text)
    }

    /// The document of a text: as it is remembered, or read now.
    pub fn find(&self, text: String) -> Result<Found, Invalid> {
        if let Some(parsed) = self.known.get(text.as_str()) {
            return Ok(Found { parsed, is_known: true, text });
        }
        let parsed = Arc::new(Parsed::read(&text, self.introspection)?);
        Ok(Found { parsed, is_known: false, text })
    }

    /// Whether a request with these variables need not be validated again.
    pub fn is_valid(&self, found: &Found, variables: &Variables) -> bool {
        found.is_known && found.parsed.would_pass(variables, &self.inputs)
    }

    /// Remembers a document that was validated and ran without an error.
    pub fn remember(&self, found: Found) {
        if !found.is_known {
            self.known.insert(found.text, found.parsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn documents() -> Documents {
        Documents::new(&super::super::sdl(), false)
    }

    /// Whether a known document would pass with these variables.
    fn passes(query: &str, variables: serde_json::Value) -> bool {
        let documents = documents();
        documents.remember(documents.find(query.to_owned()).unwrap());
        let found = documents.find(query.to_owned()).unwrap();
        documents.is_valid(&found, &serde_json::from_value(variables).unwrap())
    }

    #[test]
    fn a_document_is_read_once_and_a_refused_one_each_time() {
        let documents = documents();
        let query = "{ health }";
        let first = documents.find(query.to_owned()).unwrap();
        assert!(!first.is_known && !documents.is_valid(&first, &Variables::default()));
        let parsed = Arc::clone(&first.parsed);
        documents.remember(first);
        let again = documents.find(query.to_owned()).unwrap();
        assert!(again.is_known && Arc::ptr_eq(&again.parsed, &parsed));
        assert!(documents.is_valid(&again, &Variables::default()));
        assert!(!documents.find("{ health  }".to_owned()).unwrap().is_known, "another text");
        for _ in 0..2 {
            assert!(documents.find("{ __schema { types { name } } }".to_owned()).is_err());
        }
    }

    #[test]
    fn a_request_names_one_of_the_operations() {
        let named = |text: &str, name: Option<&str>| {
            Parsed::read(text, false).unwrap().operation(name).map(|shape| shape.kind).ok()
        };
        assert_eq!(named("{ health }", None), Some(OperationType::Query));
        assert_eq!(named("{ health }", Some("a")), None);
        assert_eq!(named("query a { health }", None), Some(OperationType::Query));
        let two = "query a { health } mutation b { cancelAllOrders { code } }";
        assert_eq!(named(two, None), None);
        assert_eq!(named(two, Some("b")), Some(OperationType::Mutation));
        assert_eq!(named(two, Some("c")), None);
    }

    #[test]
    fn orders_are_counted_in_each_operation_of_its_own() {
        let order = "createOrder(request: $r) { code }";
        let text = format!(
            "mutation a($r: CreateOrderRequest!) {{ {order} b: {order} }} \
             mutation b($r: CreateOrderRequest!) {{ {order} cancelAllOrders {{ code }} }}"
        );
        let parsed = Parsed::read(&text, false).unwrap();
        let shape = |name| parsed.operation(Some(name)).map(|s| (s.orders, s.only_orders)).unwrap();
        assert_eq!((shape("a"), shape("b")), ((2, true), (1, false)));
    }

    #[test]
    fn an_answers_keys_stand_as_they_were_asked_for() {
        let text = "query a { health ...f z: health } query b { b: health a: health } \
                    fragment f on Query { y: health ... on Query { x: health health } }";
        let parsed = Parsed::read(text, false).unwrap();
        let ordered = |name, keys: &[&str]| {
            let mut data = Value::from_json(json!({})).unwrap();
            if let Value::Object(fields) = &mut data {
                fields.extend(keys.iter().map(|key| (Name::new(key), Value::Null)));
            }
            parsed.put_in_order(Some(name), &mut data);
            let Value::Object(fields) = data else { return Vec::new() };
            fields.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(ordered("a", &["x", "y", "z", "health"]), ["health", "y", "x", "z"]);
        assert_eq!(ordered("b", &["a", "b"]), ["b", "a"]);
        let below = Parsed::read(
            "{ getOrders { data { id } ...f } } fragment f on OrdersResponse { count code }",
            false,
        );
        let mut data =
            Value::from_json(json!({"getOrders": {"code": "OK", "count": 0, "data": []}})).unwrap();
        below.unwrap().put_in_order(None, &mut data);
        assert_eq!(data.to_string(), r#"{getOrders: {data: [], count: 0, code: "OK"}}"#);
    }

    #[test]
    fn a_variable_that_is_missing_is_named() {
        let text = "query a($s: String!, $n: Int! = 3, $m: Int) { candles(symbol: $s, first: $n) { code } }";
        let parsed = Parsed::read(text, false).unwrap();
        let check = |variables: serde_json::Value| {
            parsed.check_variables(None, &serde_json::from_value(variables).unwrap()).map_err(|e| e.message)
        };
        assert_eq!(check(json!({"s": "A"})), Ok(()));
        assert_eq!(check(json!({"n": 1})), Err("the variable $s of type String! is missing".to_owned()));
    }

    #[test]
    fn variables_that_fit_need_no_validation_and_others_do() {
        let quote = "query($s: String!) { getStockQuote(symbol: $s) { code } }";
        assert!(passes(quote, json!({"s": "AAPL"})));
        assert!(passes(quote, json!({})), "what is missing is the executor's to refuse");
        for wrong in [json!({"s": 1}), json!({"s": null}), json!({"s": ["AAPL"]}), json!({"s": {"a": 1}})] {
            assert!(!passes(quote, wrong.clone()), "{wrong}");
        }
        let nested = "query($s: String!) { getStockQuoteBatch(symbols: [$s]) { code } }";
        assert!(!passes(nested, json!({"s": "AAPL"})), "a variable inside an argument");
        let order = "mutation($r: CreateOrderRequest!) { createOrder(request: $r) { code } }";
        let good = json!({"symbol": "AAPL", "side": "BUY", "type": "LIMIT", "quantity": 1, "price": 1.5});
        assert!(passes(order, json!({"r": good})));
        for (name, value) in [("quantity", json!("1")), ("more", json!(1)), ("symbol", json!(null))] {
            let mut wrong = good.clone();
            wrong[name] = value;
            assert!(!passes(order, json!({"r": wrong})), "{wrong}");
        }
        let mut missing = good;
        missing.as_object_mut().unwrap().remove("symbol");
        assert!(!passes(order, json!({"r": missing})));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let documents = Documents::with_room(&super::super::sdl(), false, 4 * WEIGHT_MIN as u64);
        for i in 0..50 {
            documents.remember(documents.find(format!("{{ a{i}: health }}")).unwrap());
        }
        documents.known.run_pending_tasks();
        assert!(documents.known.entry_count() <= 4);
        assert!(documents.known.weighted_size() <= 4 * WEIGHT_MIN as u64);
    }
}
