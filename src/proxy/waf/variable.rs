//! What rules look at: the variables of SecLang, and targets, which are variables with a selector.

use regex::bytes::Regex;

macro_rules! variables {
    ($($name:ident $text:literal),* $(,)?) => {
        /// A variable of SecLang. Values of those up to `Xml` are the request's and the answer's own; the others change while rules run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Variable { $($name),* }

        const NAMES: &[(&str, Variable)] = &[$(($text, Variable::$name)),*];
    };
}

variables! {
    ArgsGet "ARGS_GET",
    ArgsPost "ARGS_POST",
    ArgsGetNames "ARGS_GET_NAMES",
    ArgsPostNames "ARGS_POST_NAMES",
    ArgsCombinedSize "ARGS_COMBINED_SIZE",
    AuthType "AUTH_TYPE",
    Duration "DURATION",
    Files "FILES",
    FilesCombinedSize "FILES_COMBINED_SIZE",
    FilesNames "FILES_NAMES",
    FilesSizes "FILES_SIZES",
    MultipartFilename "MULTIPART_FILENAME",
    MultipartName "MULTIPART_NAME",
    MultipartPartHeaders "MULTIPART_PART_HEADERS",
    MultipartStrictError "MULTIPART_STRICT_ERROR",
    QueryString "QUERY_STRING",
    RemoteAddr "REMOTE_ADDR",
    RemotePort "REMOTE_PORT",
    ReqbodyError "REQBODY_ERROR",
    ReqbodyErrorMsg "REQBODY_ERROR_MSG",
    ReqbodyProcessor "REQBODY_PROCESSOR",
    RequestBasename "REQUEST_BASENAME",
    RequestBody "REQUEST_BODY",
    RequestBodyLength "REQUEST_BODY_LENGTH",
    RequestCookies "REQUEST_COOKIES",
    RequestCookiesNames "REQUEST_COOKIES_NAMES",
    RequestFilename "REQUEST_FILENAME",
    RequestHeaders "REQUEST_HEADERS",
    RequestHeadersNames "REQUEST_HEADERS_NAMES",
    RequestLine "REQUEST_LINE",
    RequestMethod "REQUEST_METHOD",
    RequestProtocol "REQUEST_PROTOCOL",
    RequestUri "REQUEST_URI",
    RequestUriRaw "REQUEST_URI_RAW",
    ResponseBody "RESPONSE_BODY",
    ResponseContentLength "RESPONSE_CONTENT_LENGTH",
    ResponseContentType "RESPONSE_CONTENT_TYPE",
    ResponseHeaders "RESPONSE_HEADERS",
    ResponseHeadersNames "RESPONSE_HEADERS_NAMES",
    ResponseProtocol "RESPONSE_PROTOCOL",
    ResponseStatus "RESPONSE_STATUS",
    ServerAddr "SERVER_ADDR",
    ServerName "SERVER_NAME",
    ServerPort "SERVER_PORT",
    UniqueId "UNIQUE_ID",
    Xml "XML",
    Tx "TX",
    Ip "IP",
    Global "GLOBAL",
    Session "SESSION",
    User "USER",
    Resource "RESOURCE",
    Geo "GEO",
    MatchedVar "MATCHED_VAR",
    MatchedVarName "MATCHED_VAR_NAME",
    MatchedVars "MATCHED_VARS",
    MatchedVarsNames "MATCHED_VARS_NAMES",
    Rule "RULE",
}

/// How many variables have values of their own.
pub const STORED: usize = Variable::Xml as usize + 1;

impl Variable {
    /// One name may stand for two variables: `ARGS` is those of the query and those of the body.
    pub fn named(name: &str) -> Option<Vec<Variable>> {
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "ARGS" => return Some(vec![Variable::ArgsGet, Variable::ArgsPost]),
            "ARGS_NAMES" => return Some(vec![Variable::ArgsGetNames, Variable::ArgsPostNames]),
            _ => {}
        }
        let found = NAMES.iter().find(|(text, _)| *text == upper)?;
        Some(vec![found.1])
    }

    pub fn is_stored(self) -> bool {
        (self as usize) < STORED
    }

    /// Name in logs and in `MATCHED_VAR_NAME`: where the two kinds of arguments are one.
    pub fn name(self) -> &'static str {
        match self {
            Variable::ArgsGet | Variable::ArgsPost => "ARGS",
            Variable::ArgsGetNames | Variable::ArgsPostNames => "ARGS_NAMES",
            _ => NAMES[self as usize].0,
        }
    }

    /// Its values have a key: a selector makes sense.
    pub fn has_keys(self) -> bool {
        use Variable::*;
        matches!(
            self,
            ArgsGet
                | ArgsPost
                | ArgsGetNames
                | ArgsPostNames
                | Files
                | FilesNames
                | FilesSizes
                | MultipartFilename
                | MultipartName
                | MultipartPartHeaders
                | RequestCookies
                | RequestCookiesNames
                | RequestHeaders
                | RequestHeadersNames
                | ResponseHeaders
                | ResponseHeadersNames
                | Xml
                | Tx
                | Ip
                | Global
                | Session
                | User
                | Resource
                | Geo
                | MatchedVars
                | MatchedVarsNames
                | Rule
        )
    }
}

/// Which keys of a variable.
#[derive(Clone, Debug)]
pub enum Selector {
    All,
    /// In lower case: keys are compared without regard to it.
    Key(String),
    Pattern(Regex),
}

impl Selector {
    pub fn picks(&self, key: &[u8]) -> bool {
        match self {
            Selector::All => true,
            Selector::Key(wanted) => wanted.as_bytes().eq_ignore_ascii_case(key),
            Selector::Pattern(pattern) => pattern.is_match(key),
        }
    }
}

/// One variable with its selector.
#[derive(Clone, Debug)]
pub struct Target {
    pub variable: Variable,
    pub selector: Selector,
    /// Of the values, only how many there are.
    pub is_count: bool,
}

impl Target {
    pub fn covers(&self, variable: Variable, key: &[u8]) -> bool {
        self.variable == variable && self.selector.picks(key)
    }
}

/// What a rule looks at: targets, less exclusions.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pub include: Vec<Target>,
    pub exclude: Vec<Target>,
}

impl Targets {
    pub fn add(&mut self, other: Targets) {
        self.include.extend(other.include);
        self.exclude.extend(other.exclude);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_for_the_variable_at_its_place() {
        for (place, (name, variable)) in NAMES.iter().enumerate() {
            assert_eq!(*variable as usize, place);
            assert_eq!(Variable::named(&name.to_lowercase()), Some(vec![*variable]));
        }
        assert_eq!(Variable::named("NO_SUCH"), None);
    }

    #[test]
    fn keys_are_picked_without_regard_to_case() {
        assert!(Selector::Key("user-agent".into()).picks(b"User-Agent"));
        assert!(!Selector::Key("user-agent".into()).picks(b"User"));
    }
}
