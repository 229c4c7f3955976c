// Package agent wires the agent: sources, enrichment, rules, correlation,
// alerts, spool and shipping, in one straight line.
//
//	source --> pipeline (stamp, judge) --> outbox (spools) --> shipper --> console
//
// One goroutine, the pipeline, owns the judge. It never waits for an alert to be
// on disk; for activity and for the judge's journal only while a full segment is
// closed, and while the judge's checkpoints are copied, some ms each. On stop the parts
// end in that order, so that nothing on the way is lost: sources first, then the
// pipeline empties its queue, then the outbox syncs, then the shipper flushes for
// a bounded time.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/enrich"
	"sekisho/internal/event"
	"sekisho/internal/fileaudit"
	"sekisho/internal/judge"
	"sekisho/internal/procwatch"
	"sekisho/internal/session"
	"sekisho/internal/spool"
	"sekisho/internal/volume"

	"go.uber.org/zap"
)

// eventQueue is how many events may wait for the pipeline. Sensors that find it
// full wait; each has a queue of its own that counts what it drops. Judgement:
// at 10 us an event this is 10 ms of work.
const eventQueue = 1024

// updateEvery is how often alerts that repeats have joined are sent again; those
// that grow on, ever more rarely.
const updateEvery = 2 * time.Second

// lastFlush bounds the shipper's last try when the agent stops.
const lastFlush = 5 * time.Second

// Options are what New needs.
type Options struct {
	ConfigFile string // settings, watched for changes; empty: defaults
	Version    string
	Log        *zap.Logger
	Level      *zap.AtomicLevel // changed on reload; may be nil
	Tee        io.Writer        // gets every event and alert as a JSON line, from one goroutine; may be nil
	Sources    []Source         // instead of this PC's sensors; nil: those

	// Confine takes every right from the process but the capabilities named; nil:
	// it keeps what it has. It is called once the sensors have opened what they need.
	Confine func(keep ...string) error
	// Restarted says that who runs the agent starts it again when Run ends with
	// ErrAgain: a sensor that breaks when rights were given up is opened anew so.
	Restarted bool
}

// Agent is the running service. It is made by New and works in Run.
type Agent struct {
	o        Options
	log      *zap.Logger
	stateDir string
	started  time.Time
	last     time.Time // last sign of life of the run before; zero: there was none

	host      event.Host
	osVersion string

	cfg      atomic.Pointer[config.Agent]
	problems atomic.Pointer[settingsState]
	judgeIs  atomic.Pointer[endpoint.Rules] // the judge's figures, for status

	events     chan *event.Event
	commands   chan func() // run by the pipeline, which owns the judge
	judge      *judge.Judge
	stage      *enrich.Stage
	rules      loaded                      // in force; the pipeline's, like the judge
	refused    []string                    // rule files refused at the start
	given      uint64                      // alerts that the judge gave out, as it counts them; the pipeline's
	unsafe     string                      // why the judge says that a restart may forget something; the pipeline's
	expiryLook time.Time                   // when it was last looked at what ends soon; the pipeline's
	expiryTold map[string]string           // the day on which each kind of it was told last; the pipeline's
	who        atomic.Pointer[event.Agent] // stamped on events

	sensors   []*supervised
	files     *fileaudit.Watcher     // told of new protected places; nil without this PC's sensors
	open      func() []volume.Volume // what is mounted now and told of; nil where volumes are not told
	processes *procwatch.Watcher     // given back what it told; nil without this PC's sensors
	sessions  *session.Watcher       // asked for the session of a process; nil where sessions are not told
	out       *outbox
	link      *link
	canaries  *canaries // of self-tests
	life      *life     // of the sensors' own proof that they see
	rights    rights
	ends      ends
	budget    *budget

	hups  <-chan os.Signal // wishes to read the settings again
	unhup func()           // ends them

	reloading     sync.Mutex    // held by Reload: one at a time, or an older file could win
	judged        atomic.Uint64 // events since start
	droppedBefore uint64        // records that the spools had dropped before this start
	ended         chan struct{} // closed when the pipeline has ended
}

// settingsState is what status tells of the settings.
type settingsState struct {
	loaded   time.Time
	problems []string
}

// New loads settings and rules and opens the spools. It starts nothing. Problems
// of settings or rules are returned as they are, each with file, line and column.
func New(o Options) (_ *Agent, err error) {
	// Before the settings are read: one that comes meanwhile must not end the agent.
	hups, unhup := hangups()
	defer func() {
		if err != nil {
			unhup()
		}
	}()
	cfg, err := loadSettings(o.ConfigFile)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		hups: hups, unhup: unhup,
		o: o, log: o.Log, stateDir: cfg.StateDir, started: time.Now().UTC(),
		events: make(chan *event.Event, eventQueue), commands: make(chan func()),
		canaries: newCanaries(), budget: newBudget(), ends: ends{tools: map[string]bool{}}, ended: make(chan struct{}), expiryTold: map[string]string{},
	}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	if err := Secure(o.ConfigFile, a.stateDir); err != nil {
		return nil, err
	}
	a.last = lastSign(a.stateDir)
	if a.host, a.osVersion, err = Machine(a.stateDir); err != nil {
		return nil, err
	}
	// A rule that is wrong at the start must not leave the PC without the others:
	// the right ones run, and status tells of the rest. (A reload is all or
	// nothing: there the rules before are the better ones.)
	var ruleErr error
	if a.rules, ruleErr = loadRules(cfg); ruleErr != nil {
		a.refused = lines(ruleErr)
		a.log.Error("rules refused, the others run", zap.Error(ruleErr))
	}
	a.warnOpenRules()
	a.stage = enrich.New(enrich.Options{Config: cfg})
	// Windows and quiet times go on where the run before left them.
	if a.judge, err = judge.Open(filepath.Join(a.stateDir, "judge"), judge.Options{Program: a.rules.program, Enricher: a.stage}); err != nil {
		return nil, starting(a.stateDir, err)
	}
	a.figures()
	a.keep(cfg, nil)
	if a.out, err = openOutbox(filepath.Join(a.stateDir, "spool"), int64(cfg.Limits.SpoolAlerts), int64(cfg.Limits.SpoolActivity), cfg.Limits.ActivityMaxAge, a.log, a.canaries.spooled, a.judge.Sync); err != nil {
		a.judge.Close()
		return nil, starting(a.stateDir, err)
	}
	a.recovered()
	a.canaries.committed = func() uint64 {
		st := a.out.alerts.Stats()
		return st.Appended - uint64(st.Records)
	}
	a.droppedBefore = a.out.alerts.Stats().Dropped.Total() + a.out.activity.Stats().Dropped.Total()
	a.link = newLink(a)
	a.who.Store(&event.Agent{ID: a.link.agentID(), Version: o.Version})
	if a.sensors = supervise(o.Sources, a.log); o.Sources == nil {
		a.sensors, a.processes, a.files, a.open, a.sessions = newSensors(cfg, a.last, a.log)
	}
	for _, s := range a.sensors {
		s.less = func() { a.reopen(s) }
	}
	a.life = newLife(a.stateDir, a.sensors, a.log.Named("canary"))
	a.life.again = a.again
	a.life.tell, a.life.every = a.tell, func() time.Duration { return a.cfg.Load().Sensors.Canary }
	if a.files != nil {
		a.files.SetProtected(a.places(cfg))
	}
	return a, nil
}

// Secure makes sure that nobody who is watched can change the agent's settings or
// records: it makes the state directory, closes it to users on Windows, and refuses
// settings or a directory that a user owns or may write (there, as a
// *winacl.Trouble).
func Secure(settingsFile, stateDir string) error {
	if settingsFile != "" {
		if err := secureSettings(settingsFile); err != nil {
			return err
		}
	}
	if err := makeStateDir(stateDir); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// SecureSettings is the part of Secure that is about settings; their folder is made
// if need be.
func SecureSettings(file string) error { return secureSettings(file) }

// loadSettings reads a settings file; without one the defaults count.
func loadSettings(file string) (*config.Agent, error) {
	if file == "" {
		return config.DefaultAgent(), nil
	}
	return config.LoadAgent(file)
}

// The reasons why an agent cannot start that have a text of their own.
var (
	// ErrRunning says that another agent works with this state directory.
	ErrRunning = errors.New("another agent is running with this state directory")
	// ErrNoRoom says that the disk of the state directory is full.
	ErrNoRoom = errors.New("the disk of the state directory is full")
)

// starting names the reason why the state directory cannot be used.
func starting(dir string, err error) error {
	switch {
	case errors.Is(err, spool.ErrInUse), errors.Is(err, judge.ErrInUse):
		return fmt.Errorf("%w: %s: %w", ErrRunning, dir, err)
	case errors.Is(err, spool.ErrFull):
		return fmt.Errorf("%w: %s: %w", ErrNoRoom, dir, err)
	}
	return err
}

// keep puts settings in force.
func (a *Agent) keep(cfg *config.Agent, problems []string) {
	a.cfg.Store(cfg)
	a.problems.Store(&settingsState{time.Now().UTC(), problems})
	a.budget.set(cfg.Limits)
	if os.Getenv("GOMEMLIMIT") == "" { // else somebody who tries something has set it for the runtime
		debug.SetMemoryLimit(int64(cfg.Limits.Memory))
	}
	if a.o.Level != nil {
		_ = a.o.Level.UnmarshalText([]byte(cfg.Log.Level)) // the settings were checked
	}
}

// Run works until ctx is done, then stops in order. It returns nil after a clean
// stop, and ErrAgain after one that it asked for itself.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer a.unhup() // not before the end: it would cut the stop short
	a.rights.end = cancel
	before, stopped, err := previousRun(a.stateDir)
	if err != nil {
		// A crash that cannot be told is no reason to watch nothing.
		a.log.Error("look at the previous run", zap.Error(err))
		err = nil
	}
	start := event.New(event.AgentStarted, time.Now())
	start.Message = "agent " + a.o.Version + " started"
	start.Lost = gap(a.last, start.Time)
	killed := false
	if before != nil && before.Action == event.AgentStarted {
		start.Message += "; " + before.Message
		killed = true
	} else if before != nil {
		a.log.Error("the run before crashed", zap.String("report", before.Message))
	}

	// The parts that must outlive the sources have contexts of their own.
	var sources, pipeline, outbox, shipping, helpers sync.WaitGroup
	sourceCtx, stopSources := context.WithCancel(ctx)
	defer stopSources()
	shipCtx, stopShipping := context.WithCancel(context.WithoutCancel(ctx))
	defer stopShipping()
	drained := make(chan struct{})

	outbox.Go(func() { a.out.run(sourceCtx.Done()) })
	pipeline.Go(func() {
		pprof.Do(shipCtx, pprof.Labels(costLabel, "rules"), func(context.Context) { a.pipeline(drained) })
	})
	shipping.Go(func() {
		a.awaitSensors(sourceCtx, sensorsWithin)
		a.link.run(shipCtx)
	})
	helpers.Go(func() { a.out.tellLosses(sourceCtx, a.tellNow) })
	helpers.Go(func() { a.watchSettings(sourceCtx) })
	helpers.Go(func() { a.life.run(sourceCtx) })
	helpers.Go(func() { a.confine(sourceCtx) })
	helpers.Go(func() { a.keepAlive(sourceCtx) })
	if killed {
		helpers.Go(func() { a.tellGap(sourceCtx) })
	}
	helpers.Go(func() { a.keepControl(sourceCtx) })
	if before != nil && before.Action == event.AgentCrashed {
		// Its report is gone from the run file: it must be on disk before anything
		// else can go wrong.
		if before.Sensor = "agent"; a.tellNow(before) {
			a.out.activity.Sync()
		}
	}
	a.tell(ctx, start)
	if text := a.afresh(); text != "" {
		e := event.New(event.SensorDegraded, time.Now())
		e.Sensor, e.Health, e.Message = sensorJudge, event.HealthDown, text
		a.tell(ctx, e)
	}
	for _, s := range a.sensors {
		sources.Go(func() { s.run(sourceCtx, a.events) })
	}
	a.log.Info("agent started", zap.String("version", a.o.Version), zap.String("host", a.host.Name), zap.Int("rules", a.judgeIs.Load().Active))

	<-ctx.Done()
	stopSources()
	sources.Wait()
	helpers.Wait()
	end := event.New(event.AgentStopped, time.Now())
	end.Message = "agent stopped"
	a.events <- end
	close(drained)
	pipeline.Wait()
	close(a.out.queue)
	outbox.Wait()
	// The pipeline has ended; the judge is ours.
	a.judge.Kept(a.out.kept.Load())
	if err := a.judge.Close(); err != nil {
		// The next start judges the journal again, which is on disk.
		a.log.Warn("write what was counted", zap.Error(err))
	}
	serr := errors.Join(a.out.alerts.Sync(), a.out.activity.Sync())
	stopShipping()
	shipping.Wait()
	err = errors.Join(err, serr, a.out.close())
	if err == nil {
		stopped()
		if errors.Is(context.Cause(ctx), ErrAgain) {
			err = context.Cause(ctx)
		}
	}
	a.log.Info("agent stopped", zap.Error(err))
	return err
}

// sensorsWithin is how long the first contact with the console waits for the
// sensors to come up, so that they are not told as down because they are young.
const sensorsWithin = 2 * time.Second

// awaitSensors waits until every sensor works by some mechanism or said why not.
func (a *Agent) awaitSensors(ctx context.Context, within time.Duration) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	end := time.After(within)
	for {
		waiting := false
		for _, s := range a.sensors {
			st := s.status()
			waiting = waiting || st.State == endpoint.SensorDown && st.Mechanism == ""
		}
		if !waiting {
			return
		}
		select {
		case <-t.C:
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// tell puts an event of the agent's own on the way.
func (a *Agent) tell(ctx context.Context, e *event.Event) {
	if e.Sensor == "" {
		e.Sensor = "agent"
	}
	select {
	case a.events <- e:
	case <-ctx.Done():
	}
}

// do runs f in the pipeline and waits for it; false: the pipeline has ended.
func (a *Agent) do(f func()) bool {
	done := make(chan struct{})
	select {
	case a.commands <- func() { f(); close(done) }:
		<-done
		return true
	case <-a.ended:
		return false
	}
}

// tellNow puts an event of the agent's own on the way, past those that wait, and
// reports whether it got into the activity spool.
func (a *Agent) tellNow(e *event.Event) (kept bool) {
	return a.do(func() { kept = a.handle(e) }) && kept
}

// pipeline judges events one after the other. After drained is closed it ends
// with the last event that waits.
func (a *Agent) pipeline(drained <-chan struct{}) {
	defer close(a.ended)
	t := time.NewTicker(updateEvery)
	defer t.Stop()
	var sampled time.Time
	for {
		select {
		case e := <-a.events:
			a.handle(e)
			a.handleMore()
		case f := <-a.commands:
			f()
		case now := <-t.C:
			if e := a.budget.look(now); e != nil {
				a.handle(e)
			}
			if now.Sub(sampled) >= rateEvery {
				sampled = now
				for _, s := range a.sensors {
					s.sample()
				}
			}
			a.updates(a.judge.PacedUpdates())
			a.checkpoint()
			a.safe()
			a.expiries(time.Now())
			a.figures()
		case <-drained:
			for {
				select {
				case e := <-a.events:
					a.handle(e)
					continue
				default:
				}
				break
			}
			if e := a.budget.close(time.Now()); e != nil {
				a.handle(e)
			}
			a.updates(a.judge.Updates())
			return
		}
	}
}

// handleMore handles what waits in the queue, up to so many events that others are
// not kept waiting: that costs less than to ask for everything after each.
func (a *Agent) handleMore() {
	for range inARow {
		select {
		case e := <-a.events:
			a.handle(e)
		default:
			return
		}
	}
}

// inARow events take a millisecond.
const inARow = 64

// sensorJudge is the name under which the judge's own trouble is told.
const sensorJudge = "judge"

// recovered takes the alerts that the run before may not have kept to the
// outbox, before anything else gets there.
func (a *Agent) recovered() {
	r := a.judge.Recovery()
	for _, al := range r.Alerts {
		a.given++
		a.out.again = append(a.out.again, outgoing{rec: fitAlert(al.JSON, rowBytes(a.out.alerts)), n: a.given, update: true})
	}
	if r.Afresh != nil {
		a.log.Error("counting begins afresh", zap.Error(r.Afresh))
	}
	if r.Events > 0 || r.Lost > 0 {
		a.log.Info("judged again what the run before had not written down", zap.Int64("events", r.Events), zap.Int64("lost", r.Lost),
			zap.Int("alerts", len(r.Alerts)), zap.Duration("took", r.Took))
	}
}

// afresh says, for the event that tells of it, what counting has lost at this
// start; "" if nothing.
func (a *Agent) afresh() string {
	r := a.judge.Recovery()
	switch {
	case r.Afresh != nil:
		return "counting began afresh at " + a.started.Format(time.RFC3339) + ": what was counted before, such as copies of earlier weeks, counts no more (" + r.Afresh.Error() + ")"
	case r.Lost > 0:
		return fmt.Sprintf("%d events that were counted before %s could not be read any more and count no more", r.Lost, a.started.Format(time.RFC3339))
	}
	return ""
}

// checkpoint lets the judge write down what it counted, if it is time to: at most
// once for each MB of events that rules looked at. The pipeline waits some ms
// while that is copied, and not for the disk.
func (a *Agent) checkpoint() {
	a.judge.Kept(a.out.kept.Load())
	if !a.judge.Due() {
		return
	}
	began := time.Now()
	if err := a.judge.StartCheckpoint(); err == nil { // else it is in its Stats: see safe
		a.log.Debug("write down what was counted", zap.Duration("took", time.Since(began)))
	}
}

// safe tells once when what is counted would not survive a restart.
func (a *Agent) safe() {
	was := a.unsafe
	a.unsafe = a.judge.Stats().Problem
	switch {
	case a.unsafe != "" && was == "":
		a.log.Error("what is counted may not survive a restart", zap.String("reason", a.unsafe))
		e := event.New(event.SensorDegraded, time.Now())
		e.Sensor, e.Health, e.Message = sensorJudge, event.HealthDown, "what is counted may not survive a restart: "+a.unsafe
		a.handle(e)
	case a.unsafe == "" && was != "":
		a.log.Info("what is counted survives a restart again")
	}
}

// handle is the way of one event, and of what follows from it. It reports whether
// the event is in the activity spool. The event is not the caller's any more.
func (a *Agent) handle(e *event.Event) bool {
	kept, held := a.process(e)
	if !held && a.processes != nil && (e.Action == event.ProcessStarted || e.Action == event.ProcessEnded) {
		a.processes.Recycle(e)
	}
	return kept
}

// process does what handle says, and reports besides whether somebody holds on to
// the event.
func (a *Agent) process(e *event.Event) (kept, held bool) {
	e.Host, e.Agent = &a.host, a.who.Load()
	if e.Action == event.SensorDegraded && e.Health == "" {
		e.Health = event.HealthDegraded // a sensor tells of lesser mechanisms; that it is down, its supervisor tells
	}
	if a.life.take(e, a.matchesCanary) {
		return false, false
	}
	if !a.wanted(e) {
		a.judged.Add(1)
		return false, false
	}
	if a.budget.sheds(e) {
		return false, false
	}
	if a.sessions != nil {
		a.sessions.Fill(e)
	}
	canary := a.canaries.mark(e)
	a.judged.Add(1)
	alerts := a.judge.Event(e)
	held = a.judge.Held()
	a.ends.note(e)
	a.tee(e.AppendJSON)
	for _, al := range alerts {
		if canary {
			a.canaries.judged(e.ID, al.ID)
		}
		a.tee(al.AppendJSON)
		a.give(al, false)
	}
	kept = shipped(e) && (len(alerts) > 0 || !a.budget.shedsActivity(e)) && a.out.act(e)
	if a.stage.SessionBegan() && a.open != nil {
		a.openVolumes(e.Time)
	}
	if held { // else nothing was written that could make it due
		a.checkpoint()
	}
	return kept, held
}

// selfTestRule is the shipped rule that canaries match.
const selfTestRule = "SELFTEST"

// matchesCanary enriches an event and reports whether the rule for canaries
// matches it, or is not in force. Nothing follows from that.
func (a *Agent) matchesCanary(e *event.Event) bool {
	a.stage.Apply(e)
	due := false
	for _, r := range a.rules.program.Find(selfTestRule) {
		due = due || !r.Disabled
	}
	for _, m := range a.rules.program.Match(e, nil) {
		due = due && m.Rule.Table() != selfTestRule
	}
	return !due
}

// messageOpen is the message of the events that tell of volumes again which were
// open when a remote-control session began.
const messageOpen = "open when a remote-control session began"

// openVolumes tells again what is mounted: what was in reach when somebody got
// hold of the PC from outside is what the rules and, later, people ask.
func (a *Agent) openVolumes(at time.Time) {
	for _, v := range a.open() {
		e := event.New(event.VolumeMounted, at)
		e.Sensor, e.Message, e.Volume = "agent", messageOpen, &v.Volume
		a.handle(e)
	}
}

// updates sends alerts that repeats have joined since they were sent.
func (a *Agent) updates(alerts []*alert.Alert) {
	for _, al := range alerts {
		a.tee(al.AppendJSON)
		a.give(al, true)
	}
}

// give puts an alert that the judge gave out on its way.
func (a *Agent) give(al *alert.Alert, update bool) {
	a.given++
	a.out.alert(a.out.outgoing(al, update, a.given))
}

// tee writes a line for whoever looks on. Only the pipeline calls it.
func (a *Agent) tee(appendJSON func([]byte) []byte) {
	if a.o.Tee != nil {
		a.o.Tee.Write(append(appendJSON(nil), '\n'))
	}
}

// shipped reports whether the console keeps the event as activity: what leaves
// the PC or says how it is, not what people do all day. Plain reads, writes and
// process starts are judged and forgotten.
func shipped(e *event.Event) bool {
	switch e.Action {
	case event.FileWritten, event.FileRead, event.FileRenamed, event.FileDeleted:
		return false
	case event.ProcessStarted, event.ProcessEnded, event.NetworkConnected:
		return e.Process != nil && e.Process.RemoteTool != nil
	}
	return e.Action.Known()
}
