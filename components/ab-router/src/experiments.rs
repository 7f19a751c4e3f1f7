//! The experiments of this instance.

use std::cell::RefCell;
use std::time::Instant;

use spinfer_experiment::{Assignment, Experiments, Refusal, Router, Unit, key, unit};

use crate::changes::{ChangeStore, Changes};

/// Path of the mounted file.
const FILE: &str = "/experiments.toml";

thread_local! {
    /// Loaded by the first call.
    static LIVE: RefCell<Option<Result<Live, String>>> = const { RefCell::new(None) };
}

/// The experiments of the file, with the changes since.
pub(crate) struct Live {
    router: Router,
    changes: Changes,
    store: ChangeStore,
    needed_headers: Vec<String>,
    needs_body: bool,
}

/// The parts of a request that decide its assignment.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r> {
    /// Path with query.
    pub(crate) path: &'r str,
    /// The needed headers of the request: an index into [`Live::needed_headers`], and the value.
    pub(crate) headers: &'r [(u32, Vec<u8>)],
    pub(crate) body: &'r [u8],
}

/// Calls `f` with the experiments.
///
/// # Errors
/// If they cannot be loaded: 500.
pub(crate) fn with<T>(f: impl FnOnce(&mut Live) -> T) -> Result<T, Refusal> {
    LIVE.with_borrow_mut(|live| match live.get_or_insert_with(Live::read) {
        Ok(live) => Ok(f(live)),
        Err(problem) => Err(Refusal { status: 500, message: problem.clone() }),
    })
}

impl Live {
    fn read() -> Result<Self, String> {
        let text = std::fs::read_to_string(FILE).map_err(|error| {
            format!(
                "{FILE} cannot be read: {error}; write files = [{{ source = \"experiments.toml\", \
                 destination = \"{FILE}\" }}]"
            )
        })?;
        Self::parse(&text).map_err(|problem| format!("{FILE}: {problem}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let experiments = Experiments::parse(text).map_err(|invalid| invalid.to_string())?;
        let mut needed_headers = Vec::new();
        for experiment in &experiments {
            let names = [experiment.unit.header(), experiment.force.as_deref()];
            for name in names.into_iter().flatten().map(str::to_owned) {
                if !needed_headers.contains(&name) {
                    needed_headers.push(name);
                }
            }
        }
        let is_json = |unit: &Unit| matches!(unit, Unit::Json(_));
        let needs_body = experiments.iter().any(|experiment| is_json(&experiment.unit));
        let router = Router::new(&experiments)?;
        let changes = Changes::of(router.iter().map(|live| key(&live.experiment.name)));
        Ok(Self { router, changes, store: ChangeStore::default(), needed_headers, needs_body })
    }

    /// The names of the headers that decide assignments, in lower case.
    pub(crate) fn needed_headers(&self) -> &[String] {
        &self.needed_headers
    }

    /// Whether the body decides the assignment in any experiment.
    pub(crate) fn needs_body(&self) -> bool {
        self.needs_body
    }

    /// Whether the body of a request for `path` decides its assignment or goes to a shadow.
    pub(crate) fn uses_body(&self, path: &str) -> bool {
        let live = self.router.find(path).ok().and_then(|index| self.router.get(index));
        live.is_some_and(|live| {
            let shadowed = live.experiment.variants.iter().any(|variant| variant.shadow);
            shadowed || matches!(live.experiment.unit, Unit::Json(_))
        })
    }

    /// Assigns a request to a variant.
    pub(crate) fn assign(&mut self, request: Request<'_>) -> Result<Assignment<'_>, Refusal> {
        let Self { router, changes, store, needed_headers, .. } = self;
        let index = router.find(request.path)?;
        changes.poll(router, index, Instant::now(), |key| store.get(key));
        let live = router.get(index).ok_or_else(|| Refusal {
            status: 500,
            message: "the experiment does not exist".to_owned(),
        })?;
        let values = |name: &str| {
            let position = needed_headers.iter().position(|needed| needed == name);
            let values = request.headers.iter().map(move |(index, value)| {
                let is_it = position.is_some_and(|p| u32::try_from(p) == Ok(*index));
                is_it.then_some(value.as_slice())
            });
            values.flatten()
        };
        let in_body;
        let unit = match &live.experiment.unit {
            Unit::Json(path) => {
                let document = &mut serde_json::Deserializer::from_slice(request.body);
                // A body that is not JSON has no unit; the variant refuses it.
                in_body = unit::in_document(path, document).ok().flatten();
                in_body.as_deref().map(str::as_bytes)
            }
            unit => {
                let header = unit.header().unwrap_or_default();
                values(header).find_map(|value| unit.in_header(value))
            }
        };
        let force = live.experiment.force.as_deref();
        live.assign(unit, force.and_then(|name| values(name).next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(unit: &str) -> Live {
        let text = format!(
            r#"
            [experiments.iris]
            model = "iris"
            unit = {unit}
            force = "x-variant"
            [[experiments.iris.variants]]
            name = "control"
            component = "one"
            allocation = 0.5
            [[experiments.iris.variants]]
            name = "treatment"
            component = "two"
            allocation = 0.5
            "#
        );
        Live::parse(&text).unwrap()
    }

    fn variant(live: &mut Live, headers: &[(&str, &str)], body: &str) -> Result<String, u16> {
        // Without a store.
        live.changes = Changes::of([]);
        let headers: Vec<_> = headers
            .iter()
            .filter_map(|(name, value)| {
                let index = live.needed_headers.iter().position(|needed| needed == name)?;
                Some((u32::try_from(index).unwrap(), value.as_bytes().to_vec()))
            })
            .collect();
        let path = "/v2/models/iris/predict";
        let request = Request { path, headers: &headers, body: body.as_bytes() };
        let assigned = live.assign(request).map_err(|refusal| refusal.status)?;
        Ok(assigned.variant.name.clone())
    }

    #[test]
    fn unit_has_the_same_variant_in_header_cookie_and_body() {
        let header = &mut live(r#"{ header = "x-user-id" }"#);
        let cookie = &mut live(r#"{ cookie = "uid" }"#);
        let json = &mut live(r#"{ json = "user.id" }"#);
        assert_eq!(header.needed_headers(), ["x-user-id", "x-variant"]);
        assert_eq!(cookie.needed_headers(), ["cookie", "x-variant"]);
        assert_eq!((header.needs_body(), json.needs_body()), (false, true));
        let mut seen = [0, 0];
        for index in 0..50 {
            let user = format!("user-{index}");
            let by_header = variant(header, &[("x-user-id", &user)], "").unwrap();
            let by_cookie =
                variant(cookie, &[("cookie", "a=b"), ("cookie", &format!("uid={user}"))], "");
            let by_field = variant(json, &[], &format!(r#"{{"user": {{"id": "{user}"}}}}"#));
            assert_eq!(by_cookie.as_ref(), Ok(&by_header), "{user}");
            assert_eq!(by_field.as_ref(), Ok(&by_header), "{user}");
            seen[usize::from(by_header == "treatment")] += 1;
        }
        assert!(seen.into_iter().all(|count| count > 10), "{seen:?}");
    }

    #[test]
    fn request_without_unit_is_served_by_control() {
        let control = Ok("control".to_owned());
        assert_eq!(variant(&mut live(r#"{ header = "x-user-id" }"#), &[], "{}"), control);
        assert_eq!(variant(&mut live(r#"{ json = "id" }"#), &[], "no JSON"), control);
    }

    #[test]
    fn force_header_chooses_the_variant() {
        let live = &mut live(r#"{ header = "x-user-id" }"#);
        assert_eq!(variant(live, &[("x-variant", "treatment")], ""), Ok("treatment".to_owned()));
        assert_eq!(variant(live, &[("x-variant", "other")], ""), Err(400));
    }
}
