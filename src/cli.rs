//! The command line: what can be typed, and the help that teaches it.

mod image;
mod net;
mod node_images;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::identity::IdentityArgs;
use crate::listeners::Listen;
pub use image::{BuildArgs, ImageCommand, ListFormat, RegistryArgs};
pub use net::{NetArgs, NetFormat};
pub use node_images::NodeImagesArgs;

/// A whole Kubernetes for WebAssembly in one binary.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  coracle up -f samples/guestbook     start a cluster and run the sample in it
  coracle up                          start an empty cluster; deploy with kubectl apply
  coracle up --in-memory              the same, forgotten when it stops
  coracle image load app.wasm -t app:dev
                                      give a local file a name that pods can use as their image

Then, in another terminal:
  kubectl get pods
  coracle net                         who is connected to whom
  kubectl logs deployment/guestbook-frontend";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the cluster: control plane and node, in the foreground, until Ctrl-C
    Up(Box<UpArgs>),
    /// Look after the images on this node: build, load, pull, push, list, remove
    #[command(subcommand)]
    Image(ImageCommand),
    /// Look after the cluster's certificates
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Show the sockets and connections of the pods, as ss does
    Net(NetArgs),
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Show the certificates: files, subjects, names, ends; keys are never shown
    Show {
        /// Print JSON instead
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<PkiFormat>,
        /// Where the cluster is
        #[command(flatten)]
        data: DataDir,
    },
    /// Make the server's and the administrator's certificates anew; with --ca the authority too
    #[command(after_help = "\
A running `coracle up` shows the new certificate within a minute, without a restart. Certificates
that it made itself are renewed by it before they end.

With --ca a new authority signs from now on, and the old one is believed beside it: both are in the
ConfigMap kube-root-ca.crt of every namespace, in pods' ca.crt and in the kubeconfig of the data
directory. Nothing that runs breaks. Once every kubeconfig elsewhere was fetched anew and every
certificate of a user was made anew, the old one goes with `coracle pki drop-old-ca`.")]
    Renew {
        /// Put a new authority in the place of the old one, which stays believed
        #[arg(long)]
        ca: bool,
        /// Where the cluster is
        #[command(flatten)]
        data: DataDir,
    },
    /// Believe the current authority alone: ends what `renew --ca` began
    #[command(after_help = "\
Whatever the old authority signed counts no more: users' certificates, and kubeconfigs that know
only the old authority. A running `coracle up` follows within a minute; connections that are open
stay open.")]
    DropOldCa {
        /// Where the cluster is
        #[command(flatten)]
        data: DataDir,
    },
    /// Write a kubeconfig for a user, with a new key and certificate in it
    #[command(after_help = "\
Example:
  coracle pki kubeconfig --user jane --group dev --expires 30d -o jane.kubeconfig

What the user may do is up to RoleBindings for the user or the groups. A certificate cannot be
taken back before it ends.")]
    Kubeconfig {
        /// The user's name
        #[arg(long, value_name = "NAME", value_parser = identity_name)]
        user: String,
        /// A group of the user; repeatable
        #[arg(long = "group", value_name = "NAME", value_parser = identity_name)]
        groups: Vec<String>,
        /// How long the certificate is good for: 30d, 12h, 45m; at least 10m
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = lifetime)]
        expires: Duration,
        /// The file, readable by its owner alone; without it the kubeconfig is printed
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Where the cluster is
        #[command(flatten)]
        data: DataDir,
    },
}

/// How certificates are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PkiFormat {
    /// One object with a list of certificates
    Json,
}

/// Where a cluster keeps what it keeps.
#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// Folder of the cluster's state, keys, images and logs
    /// [default: the XDG state folder + /coracle, such as ~/.local/state/coracle]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The flags of `coracle up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The same manifests, kubectl and client libraries as any Kubernetes work here; images are
WebAssembly: from a registry, or .wasm files. `image: file:./app.wasm` in a manifest given with -f
names a file beside that manifest; in what kubectl sends, paths are absolute:
`image: file:///srv/app.wasm`.

Ctrl-C stops the pods within their grace period, then the cluster; a second Ctrl-C ends at once.
The next `up` brings the same pods back under the same names and addresses.")]
pub struct UpArgs {
    /// Manifests to apply once the cluster is ready: files, folders, or - for standard input;
    /// repeatable, merged with what is there as `kubectl apply` does
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub filenames: Vec<PathBuf>,

    /// Where the cluster's state is
    #[command(flatten)]
    pub data: DataDir,

    /// Also believe the client certificates that an authority in this file signed, beside the
    /// cluster's own
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,

    /// How proxies in front say who asks
    #[command(flatten)]
    pub front_proxy: FrontProxyArgs,

    /// Address of the API server [default: 127.0.0.1:6443, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// Keep the state in memory: nothing is left when it stops (without --data-dir, keys, images and
    /// logs go too)
    #[arg(long)]
    pub in_memory: bool,

    /// Leave the user's kubeconfig alone; the one in the data directory is written all the same
    #[arg(long)]
    pub no_kubeconfig: bool,

    /// Folder whose .wasm files pods may name as `file:///…`; repeatable. The current folder and
    /// those of -f are always allowed
    #[arg(long, value_name = "DIR")]
    pub allow_images_from: Vec<PathBuf>,

    /// Folder of manifests whose Pods the node runs by itself, as they come, change and go: static
    /// pods, shown as mirror pods. They may name no Secrets, ConfigMaps, claims or service accounts.
    /// Its .wasm files are allowed as images
    #[arg(long, value_name = "DIR")]
    pub static_pods: Option<PathBuf>,

    /// Folder that says how registries are reached, as containerd's certs.d does:
    /// HOST:PORT/hosts.toml names mirrors, authorities and plain HTTP
    /// [default: certs.d in the data directory]
    #[arg(long, value_name = "DIR")]
    pub registry_hosts: Option<PathBuf>,

    /// What pulls take, and what keeps the disk from filling up
    #[command(flatten)]
    pub node_images: NodeImagesArgs,

    /// Leave parts out, such as the node for an API server alone
    #[arg(long, value_name = "PART,…", value_delimiter = ',')]
    pub disable: Vec<Part>,

    /// Also accept the static tokens of a CSV file: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,

    /// Who is believed, and who decides
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Record requests in the audit log as this audit.k8s.io/v1 Policy says; Secrets and tokens
    /// are never recorded whole
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,

    /// The audit log, JSON lines [default: audit.log in the data directory]
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,

    /// Megabytes after which the audit log begins anew
    #[arg(long, value_name = "MB", default_value_t = 100, requires = "audit_policy_file",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_log_maxsize: u32,

    /// How many audit logs are kept beside the one that is written
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 10,
        requires = "audit_policy_file"
    )]
    pub audit_log_maxbackup: u32,

    /// Write a line of JSON for every request to an Ingress and every connection to a Service, after
    /// its end. The file begins anew after 100 MB, and 10 are kept beside it
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,

    /// Addresses of all pods: an IPv4 or an IPv6 range, and for pods with both families one of the
    /// other after a comma; the first is the primary one
    #[arg(
        long,
        value_name = "CIDR,…",
        value_delimiter = ',',
        default_value = "10.240.0.0/12"
    )]
    pub cluster_cidr: Vec<ipnet::IpNet>,

    /// Length of the prefix of one node's share of the pod addresses
    #[arg(long, value_name = "BITS", default_value_t = 18)]
    pub node_cidr_mask_size: u8,

    /// The same for their IPv6 addresses
    #[arg(long, value_name = "BITS", default_value_t = 64)]
    pub node_cidr_mask_size_ipv6: u8,

    /// Pods that this node runs at once; each needs an address [default: 10000, or as many as there
    /// are addresses]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_pods: Option<u32>,

    /// Addresses of Services: a range of the pods' primary family, and for Services with both families
    /// one of the other after a comma (guests reach it if pods have both, too)
    #[arg(
        long,
        alias = "service-cluster-ip-range",
        value_name = "CIDR,…",
        value_delimiter = ',',
        default_value = "10.96.0.0/16"
    )]
    pub service_cidr: Vec<ipnet::IpNet>,

    /// Address where Ingresses are served by HTTP, or off [default: 127.0.0.1:8080, or the next free
    /// port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub ingress_http: Option<Listen>,

    /// Address where Ingresses are served by HTTPS, or off [default: 127.0.0.1:8443, or the next free
    /// port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub ingress_https: Option<Listen>,

    /// Namespace whose pods reach what the host itself reaches, its loopback too, if they ask for it by
    /// hostNetwork; repeatable
    #[arg(long, value_name = "NAMESPACE")]
    pub allow_host_network: Vec<String>,

    /// Where names of the cluster are answered for programs of the host, or `off`
    /// [default: 127.0.0.1:5353, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dns_listen: Option<Listen>,

    /// Name servers for names outside the cluster [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS[:PORT],…", value_delimiter = ',', value_parser = name_server)]
    pub dns_upstream: Vec<SocketAddr>,

    /// Name servers of a domain of their own; may be given several times
    #[arg(long, value_name = "DOMAIN=ADDRESS[:PORT],…", value_parser = stub_domain)]
    pub dns_stub_domain: Vec<StubDomain>,

    /// Addresses of the host that Services of type LoadBalancer get, or `off`
    #[arg(long, value_name = "ADDRESS[-ADDRESS],…", default_value = "127.0.0.1", value_parser = address_pool)]
    pub load_balancer_addresses: AddressPool,

    /// Ports of the host that NodePort Services use
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
}

/// What `--load-balancer-addresses` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool(pub Vec<IpAddr>);

/// The most addresses of a pool.
const POOL: usize = 4096;

fn address_pool(text: &str) -> Result<AddressPool, String> {
    if text == "off" {
        return Ok(AddressPool(Vec::new()));
    }
    let mut pool = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let address = |text: &str| {
            text.trim().parse::<IpAddr>().map_err(|_| {
                format!("{text:?} is no address: write some such as 127.0.0.1 or 127.0.0.2-127.0.0.9, or off")
            })
        };
        let mut range = match (address(first)?, address(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                ipnet::IpAddrRange::V4(ipnet::Ipv4AddrRange::new(first, last))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                ipnet::IpAddrRange::V6(ipnet::Ipv6AddrRange::new(first, last))
            }
            _ => return Err(format!("{part} begins and ends in different families")),
        };
        let before = pool.len();
        pool.extend(range.by_ref().take(POOL + 1 - before));
        if pool.len() == before {
            return Err(format!("{part} ends before it begins"));
        }
    }
    match pool.len() {
        0..=POOL => Ok(AddressPool(pool)),
        _ => Err(format!("a pool has at most {POOL} addresses")),
    }
}

/// A domain whose names other servers know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubDomain {
    /// The domain.
    pub domain: String,
    /// Its servers.
    pub servers: Vec<SocketAddr>,
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let alone = || text.parse().ok().map(|ip| SocketAddr::new(ip, 53));
    with_port.or_else(alone).ok_or_else(|| {
        format!("{text:?} is no address: write one such as 192.0.2.53 or [2001:db8::53]:5353")
    })
}

fn stub_domain(text: &str) -> Result<StubDomain, String> {
    let form = || "write a domain and its servers, such as corp.example=192.0.2.53".to_owned();
    let (domain, servers) = text.split_once('=').ok_or_else(form)?;
    let domain = domain.trim_matches('.').to_ascii_lowercase();
    if domain.is_empty() {
        return Err(form());
    }
    let servers = servers
        .split(',')
        .map(name_server)
        .collect::<Result<_, _>>()?;
    Ok(StubDomain { domain, servers })
}

/// The flags about proxies in front of the API server, with upstream's names and meaning.
#[derive(Debug, Clone, Args)]
pub struct FrontProxyArgs {
    /// Believe the X-Remote-… headers of clients whose certificate an authority in this file signed;
    /// without it they are never believed
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// Common names that such certificates must have; without it any will do
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_allowed_names: Vec<String>,

    /// Headers with the user's name; the first that is there counts
    #[arg(
        long,
        value_name = "HEADER,…",
        value_delimiter = ',',
        default_value = "x-remote-user",
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_username_headers: Vec<String>,

    /// Headers with the user's identifier, such as X-Remote-Uid; without it there is none
    #[arg(
        long,
        value_name = "HEADER,…",
        value_delimiter = ',',
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_uid_headers: Vec<String>,

    /// Headers with the user's groups
    #[arg(
        long,
        value_name = "HEADER,…",
        value_delimiter = ',',
        default_value = "x-remote-group",
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_group_headers: Vec<String>,

    /// How headers with further facts about the user begin
    #[arg(
        long,
        value_name = "PREFIX,…",
        value_delimiter = ',',
        default_value = "x-remote-extra-",
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// A part of the cluster that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The controllers of Deployments, ReplicaSets, endpoints, namespaces and the rest
    Controllers,
    /// The scheduler, which chooses a node for each pod
    Scheduler,
    /// The node, which runs pods
    Node,
    /// Cluster addresses, DNS, node ports, Ingresses and network policies
    Services,
}

/// A user or group as a certificate can name it.
fn identity_name(text: &str) -> Result<String, String> {
    let is_name = !text.trim().is_empty() && !text.chars().any(char::is_control);
    match is_name {
        true => Ok(text.to_owned()),
        false => Err("expected a name without control characters, such as jane".to_owned()),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let wanted = || "expected a time of at least ten minutes, such as 30d, 12h or 45m".to_owned();
    let unit = text.chars().next_back().ok_or_else(wanted)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        _ => return Err(wanted()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wanted())?;
    let seconds = count.checked_mul(seconds).filter(|all| *all >= 600);
    seconds.map(Duration::from_secs).ok_or_else(wanted)
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('-').and_then(|(first, last)| {
        Some((
            first.trim().parse::<u16>().ok()?,
            last.trim().parse::<u16>().ok()?,
        ))
    });
    match parsed {
        Some((first, last)) if first > 0 && first <= last => Ok((first, last)),
        _ => Err("expected two ports, the lower first, such as 30000-32767".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lifetimes_and_names_are_checked() {
        assert_eq!(lifetime("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(lifetime("10m"), Ok(Duration::from_secs(600)));
        for wrong in ["", "d", "9m", "1s", "-1d", "99999999999999999999d", "1é"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
        assert!(identity_name("jane").is_ok());
        assert!(identity_name(" ").is_err() && identity_name("a\nb").is_err());
    }

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(port_range("30000-30010"), Ok((30000, 30010)));
        assert!(port_range("5-4").is_err());
        assert!(port_range("x").is_err());
    }
}
