package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"sekisho/internal/account"
	"sekisho/internal/api"
	"sekisho/internal/cli"
	"sekisho/internal/collector"
	"sekisho/internal/config"
	"sekisho/internal/console"
	"sekisho/internal/enroll"
	"sekisho/internal/lang"
	"sekisho/internal/logfile"
	"sekisho/internal/store"
	"sekisho/internal/version"
)

const (
	// stopTime is how long requests may go on after the program was told to stop;
	// with what is left to write it stays below 10 s.
	stopTime = 7 * time.Second
	// sweepEvery and sweepRows: old rows go a little at a time, so that a delivery
	// never waits long behind them.
	sweepEvery = 10 * time.Minute
	sweepRows  = 500
)

func serveCommand() *cobra.Command {
	var s settings
	var roles []string
	c := &cobra.Command{
		Use:   "serve",
		Short: lang.T("コンソールを動かす（最初の起動で管理者と証明書を作る）", "run the console (the first start makes the administrator and the certificates)"),
		Example: `  sekisho-console serve --config /etc/sekisho/console.yaml
  sekisho-console serve --role collector`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, r := range roles {
				if r != "collector" && r != "web" {
					return cli.Exit(cli.Usage, fmt.Errorf(lang.T("役割 %q はありません。collector、web、またはその両方です", "role %q: want collector, web or both"), r))
				}
			}
			cfg, err := s.load()
			if err != nil {
				return err
			}
			sv := &server{cfg: cfg, file: s.file, collector: slices.Contains(roles, "collector"), web: slices.Contains(roles, "web"), out: c.OutOrStdout()}
			ctx, stop := cli.UntilStopped(c)
			defer stop()
			return sv.run(ctx)
		},
	}
	s.flag(c)
	c.Flags().StringSliceVar(&roles, "role", []string{"collector", "web"}, lang.T("担う役割: collector（エージェント用）, web（画面とAPI）", "what to serve: collector (agents), web (pages and API)"))
	return c
}

// server is a running console.
type server struct {
	cfg            *config.Console
	file           string // of the settings
	collector, web bool   // roles
	out            io.Writer

	log   *zap.Logger
	level zap.AtomicLevel
	db    *store.SQLite
	cert  atomic.Pointer[tls.Certificate] // of the pages; nil: plain HTTP
	parts []part
}

// part is one listener and what is served on it.
type part struct {
	name string
	http *http.Server
	l    net.Listener
	tls  bool
	end  context.CancelFunc // ends requests that would go on for ever; nil: there are none
}

// run wires the console, serves until ctx is done, and stops within 10 s.
func (s *server) run(ctx context.Context) (err error) {
	log, level, closeLog, err := logfile.New(logfile.Options{
		Dir: s.cfg.Log.Dir, Name: "console.log", MaxBytes: int64(s.cfg.Log.MaxSize), MaxFiles: s.cfg.Log.MaxFiles, Level: s.cfg.Log.Level, Terminal: true,
	})
	if err != nil {
		return err
	}
	defer closeLog()
	s.log, s.level = log, level
	log.Info("console starts", zap.String("version", version.Version), zap.String("data", s.cfg.DataDir))

	if s.db, err = store.OpenSQLite(ctx, s.cfg.Storage.SQLite); err != nil {
		return err
	}
	defer func() {
		if cerr := s.db.Close(); cerr != nil {
			log.Error("close database", zap.Error(cerr))
			err = errors.Join(err, cerr)
		}
		log.Info("console stopped")
	}()
	ca, err := enroll.OpenCA(caDir(s.cfg))
	if err != nil {
		return err
	}
	if err := s.listen(ca); err != nil {
		return err
	}
	// Only now: a password shown once must not be shown for a console that cannot
	// run because its port is taken.
	if s.web {
		if err := s.firstStart(ctx); err != nil {
			return err
		}
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var jobs sync.WaitGroup
	failed := make(chan error, len(s.parts))
	for _, p := range s.parts {
		jobs.Go(func() {
			var err error
			if p.tls {
				err = p.http.ServeTLS(p.l, "", "")
			} else {
				err = p.http.Serve(p.l)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", p.name, err)
				stop()
			}
		})
		log.Info("ready", zap.String("part", p.name), zap.String("address", p.l.Addr().String()))
		fmt.Fprintf(s.out, "ready: %s %s\n", p.name, p.l.Addr())
	}
	jobs.Go(func() { s.sweep(ctx) })
	jobs.Go(func() { s.reload(ctx) })

	<-ctx.Done()
	log.Info("console stops")
	s.shutdown()
	jobs.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// caDir is where the keys of the authority are.
func caDir(cfg *config.Console) string { return filepath.Join(cfg.DataDir, "ca") }

// shutdown lets requests end; batches that were begun are answered.
func (s *server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range s.parts {
		wg.Go(func() {
			if p.end != nil {
				p.end()
			}
			if err := p.http.Shutdown(ctx); err != nil {
				s.log.Warn("requests did not end in time", zap.String("part", p.name), zap.Error(err))
				p.http.Close()
			}
		})
	}
	wg.Wait()
}

// listen binds every address before anything is served: a taken one ends the
// start, not half of it.
func (s *server) listen(ca *enroll.CA) (err error) {
	defer func() {
		if err != nil {
			for _, p := range s.parts {
				p.l.Close()
			}
		}
	}()
	add := func(name, addr string, srv *http.Server, secure bool) error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen for %s on %s: %w", name, addr, err)
		}
		s.parts = append(s.parts, part{name: name, http: srv, l: l, tls: secure})
		return nil
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector.NewFactCollector(s.db))
	if s.collector {
		agents := collector.NewServer(collector.Options{
			Store: s.db, CA: ca, Log: s.log.Named("collector"), Metrics: reg, MaxBody: int64(s.cfg.Limits.Body), Rate: s.cfg.Limits.Rate,
		})
		if err := add("agents", s.cfg.Listen.Agents, agents.HTTP(enroll.ServerNames(s.cfg.Names)), true); err != nil {
			return err
		}
	}
	if s.web {
		mux := http.NewServeMux()
		s.health(mux)
		mux.Handle(api.Root, api.NewServer(s.db, s.log.Named("api")))
		mux.Handle("/", console.NewServer(console.Options{
			Store: s.db, Logger: s.log.Named("web"), Version: version.Version,
			SessionIdle: s.cfg.Session.Idle, SessionMax: s.cfg.Session.Absolute,
			// A public address of https in front of plain HTTP: TLS ends before us.
			SecureCookies: strings.HasPrefix(s.cfg.Web.PublicURL, "https:"),
		}))
		secure := s.cfg.Web.TLS.CertFile != ""
		srv := s.httpServer(mux)
		if secure {
			if err := s.loadCertificate(); err != nil {
				return err
			}
			srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load(), nil }}
		}
		if err := add("web", s.cfg.Listen.Web, srv, secure); err != nil {
			return err
		}
		// Live streams go on until the browser leaves, or until their context ends.
		base, end := context.WithCancel(context.Background())
		srv.BaseContext = func(net.Listener) context.Context { return base }
		s.parts[len(s.parts)-1].end = end
	}
	if s.cfg.Listen.Metrics != "" {
		mux := http.NewServeMux()
		s.health(mux)
		mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 10 * time.Second}))
		if err := add("metrics", s.cfg.Listen.Metrics, s.httpServer(mux), false); err != nil {
			return err
		}
	}
	if len(s.parts) == 0 {
		return cli.Exit(cli.Usage, errors.New(lang.T("役割が指定されていないので、することがありません", "there is nothing to serve: no role was given")))
	}
	return nil
}

// loadCertificate reads the certificate of the pages: at the start, and again
// at each SIGHUP, for whoever renews it.
func (s *server) loadCertificate() error {
	cert, err := tls.LoadX509KeyPair(s.cfg.Web.TLS.CertFile, s.cfg.Web.TLS.KeyFile)
	if err != nil {
		return fmt.Errorf("web.tls: %w", err)
	}
	s.cert.Store(&cert)
	return nil
}

func (s *server) httpServer(h http.Handler) *http.Server {
	quiet, _ := zap.NewStdLogAt(s.log.Named("http"), zap.DebugLevel) // fails for unknown levels only
	return &http.Server{
		Handler: h, ErrorLog: quiet,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		WriteTimeout: 5 * time.Minute, // the longest export over a slow line; live streams have a limit per event
	}
}

// health answers balancers and service managers; neither tells anything of the
// inside.
func (s *server) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	var mu sync.Mutex // guards all below
	var asked time.Time
	var last error
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) > time.Second { // each answer is a write to the disk
			// The answer is for those who ask next, too: it must not be "the first one hung up".
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
			last, asked = s.db.Ready(ctx), time.Now()
			cancel()
			if last != nil {
				s.log.Error("not ready", zap.Error(last))
			}
		}
		if last != nil {
			http.Error(w, "the database does not take writes", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ready\n")
	})
}

// firstStart makes the first administrator, and tells its one-time password:
// once, on standard output, never in a log.
func (s *server) firstStart(ctx context.Context) error {
	users, err := s.db.Users(ctx)
	if err != nil || len(users) > 0 {
		return err
	}
	password := account.NewPassword()
	hash, err := account.HashPassword(password)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	u := &account.User{Name: "admin", Role: account.Admin, PasswordHash: hash, MustChange: true, Created: now}
	if err := s.db.AddUser(ctx, u); errors.Is(err, store.ErrExists) {
		return nil // another process on this database was first, and told its password
	} else if err != nil {
		return err
	}
	if err := s.db.Audit(ctx, account.AuditEntry{Time: now, Who: "system", Action: "user-add", Object: u.Name, Detail: string(u.Role)}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, lang.T(
		"コンソール / URL: %s\n利用者 / user: %s\n一度限りのパスワード / password: %s\n（この表示は一度だけです。最初のログインで変更します）\n",
		"URL: %s\nuser: %s\npassword: %s\n(shown this once; to be changed at the first sign-in)\n"), publicURL(s.cfg), u.Name, password)
	return err
}

// publicURL is where people find the console.
func publicURL(cfg *config.Console) string {
	if cfg.Web.PublicURL != "" {
		return cfg.Web.PublicURL
	}
	scheme := "http"
	if cfg.Web.TLS.CertFile != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(cfg.Listen.Web)
	if err != nil {
		return scheme + "://" + cfg.Listen.Web + "/"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
		if h, err := os.Hostname(); err == nil {
			host = h
		}
		if len(cfg.Names) > 0 {
			host = cfg.Names[0]
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/"
}

// sweep deletes what is older than the settings want kept.
func (s *server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		err := s.db.DeleteSessions(ctx, now.Add(-s.cfg.Session.Absolute), now.Add(-s.cfg.Session.Idle))
		total := 0
		for n := sweepRows; n == sweepRows && err == nil && ctx.Err() == nil; {
			n, err = s.db.DeleteActivity(ctx, now.Add(-s.cfg.Retention.Activity), sweepRows)
			total += n
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("delete what is past its time", zap.Error(err))
		}
		if total > 0 {
			s.log.Info("old activity deleted", zap.Int("rows", total), zap.Duration("older_than", s.cfg.Retention.Activity))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// reload takes over, at each SIGHUP, what can change while the program runs: the
// log's level and the pages' certificate. Everything else that is new in the
// settings is told as needing a restart.
func (s *server) reload(ctx context.Context) {
	asked, stop := hangups()
	defer stop()
	for {
		select {
		case <-asked:
		case <-ctx.Done():
			return
		}
		if s.cert.Load() != nil {
			if err := s.loadCertificate(); err != nil {
				s.log.Error("the certificate stays as it was", zap.Error(err))
			}
		}
		cfg, err := config.LoadConsole(s.file)
		if err != nil {
			s.log.Error("settings stay as they were", zap.String("file", s.file), zap.Error(err))
			continue
		}
		var now, restart []string
		for _, c := range config.Diff(s.cfg, cfg) {
			if c.Path == "log.level" {
				now = append(now, c.String())
			} else {
				restart = append(restart, c.String())
			}
		}
		if err := s.level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
			s.log.Error("log level", zap.Error(err))
			continue
		}
		s.log.Warn("settings read again", zap.Strings("changed", now), zap.Strings("after_a_restart", restart))
	}
}
