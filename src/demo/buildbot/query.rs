//! The queries of Buildbot's REST API, version 2: filters, fields, order, pages.
//!
//! As in `buildbot/data/resultspec.py` and `buildbot/www/rest.py` of 4.3.0.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A row of an answer.
pub type Row = Map<String, Value>;

/// Chooses, orders and cuts rows as a query asks.
///
/// # Errors
///
/// The words of a 400: an unknown parameter, or a filter on a field that is not chosen.
pub fn apply(
    rows: Vec<Row>,
    columns: &[&str],
    query: &[(String, String)],
) -> Result<Vec<Row>, String> {
    let mut rows = rows;
    let values = |wanted: &str| -> Vec<&str> {
        query
            .iter()
            .filter(|(key, _)| key == wanted)
            .map(|(_, value)| value.as_str())
            .collect()
    };
    let fields = values("field");
    let mut seen: Vec<&str> = vec![];
    for (key, _) in query {
        if seen.contains(&key.as_str())
            || ["field", "order", "limit", "offset", "property"].contains(&key.as_str())
        {
            continue;
        }
        seen.push(key);
        let (column, operator) = key.split_once("__").unwrap_or((key, "eq"));
        if !columns.contains(&column) {
            return Err(format!("unrecognized query parameter '{key}'"));
        }
        if !fields.is_empty() && !fields.contains(&column) {
            return Err("cannot filter on un-selected fields".to_owned());
        }
        filter(&mut rows, column, operator, &values(key))
            .ok_or_else(|| format!("invalid operator in '{key}'"))?;
    }
    for order in values("order").into_iter().rev() {
        let (column, backwards) = order
            .strip_prefix('-')
            .map_or((order, false), |it| (it, true));
        rows.sort_by(|one, other| {
            let order = compare(one.get(column), other.get(column));
            if backwards { order.reverse() } else { order }
        });
    }
    let number = |key: &str| {
        values(key)
            .last()
            .and_then(|value| value.parse::<usize>().ok())
    };
    let offset = number("offset").unwrap_or(0);
    let limit = number("limit").unwrap_or(usize::MAX);
    let mut rows: Vec<Row> = rows.into_iter().skip(offset).take(limit).collect();
    let properties = values("property");
    for row in &mut rows {
        if let Some(Value::Object(all)) = row.get_mut("properties")
            && !properties.contains(&"*")
        {
            all.retain(|name, _| properties.contains(&name.as_str()));
        }
        if !fields.is_empty() {
            row.retain(|column, _| fields.contains(&column.as_str()));
        }
    }
    Ok(rows)
}

fn filter(rows: &mut Vec<Row>, column: &str, operator: &str, wanted: &[&str]) -> Option<()> {
    let keep: fn(&Value, &[&str]) -> bool = match operator {
        "eq" => |value, wanted| {
            wanted
                .iter()
                .any(|it| ordering(value, it) == Some(Ordering::Equal))
        },
        "ne" => |value, wanted| {
            wanted
                .iter()
                .all(|it| ordering(value, it) != Some(Ordering::Equal))
        },
        "lt" => |value, wanted| ordering(value, wanted[0]) == Some(Ordering::Less),
        "le" => |value, wanted| ordering(value, wanted[0]).is_some_and(Ordering::is_le),
        "gt" => |value, wanted| ordering(value, wanted[0]) == Some(Ordering::Greater),
        "ge" => |value, wanted| ordering(value, wanted[0]).is_some_and(Ordering::is_ge),
        "contains" => |value, wanted| {
            wanted
                .iter()
                .any(|it| value.as_str().is_some_and(|value| value.contains(it)))
        },
        _ => return None,
    };
    rows.retain(|row| keep(row.get(column).unwrap_or(&Value::Null), wanted));
    Some(())
}

/// How a value stands to one of a query, which is read as what the value is.
fn ordering(value: &Value, wanted: &str) -> Option<Ordering> {
    match value {
        Value::Number(number) => Some(number.as_i64()?.cmp(&wanted.parse().ok()?)),
        Value::Bool(value) => {
            let wanted = ["on", "true", "yes", "1", "t", "y"].contains(&wanted);
            Some(value.cmp(&wanted))
        }
        Value::String(value) => Some(value.as_str().cmp(wanted)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Nothing comes before everything.
fn compare(one: Option<&Value>, other: Option<&Value>) -> Ordering {
    let key = |value: Option<&Value>| {
        let value = value.unwrap_or(&Value::Null);
        (
            value.as_i64(),
            value.as_str().map(str::to_owned),
            value.as_bool(),
        )
    };
    key(one).cmp(&key(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(query: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let rows = [
            json!({"buildid": 1, "complete": true, "properties": {"a": [1, "x"], "b": [2, "x"]}}),
            json!({"buildid": 2, "complete": false, "properties": {"a": [1, "x"]}}),
            json!({"buildid": 3, "complete": true, "properties": {}}),
        ];
        let rows = rows
            .into_iter()
            .filter_map(|row| row.as_object().cloned())
            .collect();
        let query: Vec<(String, String)> = query
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let rows = apply(rows, &["buildid", "complete", "properties"], &query)?;
        Ok(rows.into_iter().map(Value::Object).collect())
    }

    fn ids(query: &[(&str, &str)]) -> Vec<i64> {
        ask(query)
            .unwrap()
            .iter()
            .map(|row| row["buildid"].as_i64().unwrap())
            .collect()
    }

    #[test]
    fn filters_orders_and_pages_choose_rows() {
        assert_eq!(ids(&[("complete", "true")]), [1, 3]);
        assert_eq!(ids(&[("complete", "false")]), [2]);
        assert_eq!(ids(&[("buildid", "1"), ("buildid", "3")]), [1, 3]);
        assert_eq!(ids(&[("buildid__gt", "1"), ("order", "-buildid")]), [3, 2]);
        assert_eq!(
            ids(&[("order", "-buildid"), ("limit", "1"), ("offset", "1")]),
            [2]
        );
    }

    #[test]
    fn properties_are_there_where_they_were_asked_for() {
        let first = ask(&[("property", "a")]).unwrap().remove(0);
        assert_eq!(first["properties"], json!({"a": [1, "x"]}));
        let first = ask(&[]).unwrap().remove(0);
        assert_eq!(first["properties"], json!({}));
    }

    #[test]
    fn a_filter_needs_a_field_that_is_there_and_chosen() {
        assert!(
            ask(&[("colour", "red")])
                .unwrap_err()
                .contains("unrecognized")
        );
        let unchosen = ask(&[("field", "complete"), ("buildid", "1")]);
        assert_eq!(unchosen.unwrap_err(), "cannot filter on un-selected fields");
        let chosen = ask(&[("field", "buildid"), ("buildid", "1")]).unwrap();
        assert_eq!(chosen, [json!({"buildid": 1})]);
    }
}
