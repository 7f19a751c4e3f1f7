//! The experiments of this instance.

use std::cell::RefCell;
use std::time::Instant;

use spinfer_experiment::cookie::CookieKey;
use spinfer_experiment::format::Unavailable;
use spinfer_experiment::{Assignment, Experiments, Refusal, Router, Subject, Unit, key};

use crate::changes::{ChangeStore, Changes};
use crate::units::{self, FoundUnit};

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
    /// The key of assigned cookies, if an experiment has one.
    cookie_key: Option<CookieKey>,
}

/// The parts of a request that decide its assignment.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r> {
    /// Path with query.
    pub(crate) path: &'r str,
    /// The needed headers of the request: an index into [`Live::needed_headers`], and the value.
    pub(crate) headers: &'r [(u32, Vec<u8>)],
    pub(crate) body: &'r [u8],
    /// Whether it came over TLS.
    pub(crate) secure: bool,
}

/// The assignment of a request.
pub(crate) struct Decision<'a> {
    pub(crate) assignment: Assignment<'a>,
    pub(crate) unit: Option<Vec<u8>>,
    /// The `Set-Cookie` of a unit that was assigned to the request.
    pub(crate) set_cookie: Option<String>,
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
        let live = Experiments::parse(&text).map_err(|invalid| invalid.to_string());
        let live = live.and_then(|experiments| {
            let key = units::cookie_key(&experiments)?;
            Self::new(&experiments, key)
        });
        live.map_err(|problem| format!("{FILE}: {problem}"))
    }

    fn new(experiments: &Experiments, cookie_key: Option<CookieKey>) -> Result<Self, String> {
        let mut needed_headers = Vec::new();
        for experiment in experiments {
            let target = experiment.target.as_ref().map(|target| target.header.as_str());
            let names = [experiment.unit.header(), experiment.force.as_deref(), target];
            for name in names.into_iter().flatten().map(str::to_owned) {
                if !needed_headers.contains(&name) {
                    needed_headers.push(name);
                }
            }
        }
        let is_json = |unit: &Unit| matches!(unit, Unit::Json(_));
        let needs_body = experiments.iter().any(|experiment| is_json(&experiment.unit));
        let router = Router::new(experiments)?;
        let changes = Changes::of(router.iter().map(|live| key(&live.experiment.name)));
        let store = ChangeStore::default();
        Ok(Self { router, changes, store, needed_headers, needs_body, cookie_key })
    }

    /// The names of the headers that decide assignments, in lower case.
    pub(crate) fn needed_headers(&self) -> &[String] {
        &self.needed_headers
    }

    /// Whether the body decides the assignment in any experiment.
    pub(crate) fn needs_body(&self) -> bool {
        self.needs_body
    }

    /// Whether the body of a request for `path` decides its assignment, or may be sent twice: to a shadow,
    /// or to control as well.
    pub(crate) fn uses_body(&self, path: &str) -> bool {
        let live = self.router.find(path).ok().and_then(|index| self.router.get(index));
        live.is_some_and(|live| {
            let experiment = &live.experiment;
            experiment.variants.iter().any(|variant| variant.shadow)
                || experiment.unavailable == Unavailable::Control
                || matches!(experiment.unit, Unit::Json(_))
        })
    }

    /// Assigns a request to a variant.
    pub(crate) fn assign(&mut self, request: Request<'_>) -> Result<Decision<'_>, Refusal> {
        let Self { router, changes, store, needed_headers, cookie_key, .. } = self;
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
        let experiment = &live.experiment;
        let in_header = values(experiment.unit.header().unwrap_or_default());
        let FoundUnit { unit, set_cookie } = match (&experiment.unit, cookie_key) {
            // A unit that decides nothing needs no cookie.
            (Unit::AssignedCookie(cookie), Some(key)) if live.is_running() => {
                units::assigned(cookie, key, in_header, request.secure, units::random_id)
            }
            (Unit::AssignedCookie(_), _) => FoundUnit { unit: None, set_cookie: None },
            (unit, _) => units::find(unit, in_header, request.body),
        };
        let target = experiment.target.as_ref();
        let subject = Subject {
            unit: unit.as_deref(),
            forced: experiment.force.as_deref().and_then(|name| values(name).next()),
            targeted: target.is_some_and(|t| values(&t.header).any(|value| t.includes(value))),
        };
        let assignment = live.assign(&subject)?;
        Ok(Decision { assignment, unit, set_cookie })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(unit: &str) -> Live {
        live_with(unit, "")
    }

    fn live_with(unit: &str, keys: &str) -> Live {
        let text = format!(
            r#"
            [experiments.iris]
            model = "iris"
            unit = {unit}
            force = "x-variant"
            {keys}
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
        Live::new(&Experiments::parse(&text).unwrap(), None).unwrap()
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
        let request = Request { path, headers: &headers, body: body.as_bytes(), secure: false };
        let decision = live.assign(request).map_err(|refusal| refusal.status)?;
        Ok(decision.assignment.variant.name.clone())
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

    #[test]
    fn target_is_compared_with_every_value_of_its_header() {
        let target = "target = { header = \"x-country\", values = [\"NL\"] }";
        let live = &mut live_with(r#"{ header = "x-user-id" }"#, target);
        assert_eq!(live.needed_headers(), ["x-user-id", "x-variant", "x-country"]);
        let variants = |live: &mut Live, countries: &[(&str, &str)]| {
            let variant = |index| {
                let user = format!("user-{index}");
                variant(live, &[countries, &[("x-user-id", &user)]].concat(), "").unwrap()
            };
            (0..20).map(variant).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(variants(live, &[("x-country", "NL")]), 2);
        assert_eq!(variants(live, &[("x-country", "DE"), ("x-country", "NL")]), 2);
        assert_eq!(variants(live, &[("x-country", "DE")]), 1);
        assert_eq!(variants(live, &[]), 1);
    }
}
