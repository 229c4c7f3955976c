// Package console is the web console: server-rendered pages on which IT staff
// see what the PCs report and triage it. Handlers parse, call the store,
// render; see [NewServer] and the table of its routes.
//
// # Frame
//
// Every screen stands in one frame: a rail of screens on the left, a bar with
// search, language and person on top, a list, and a drawer on the right for
// what is selected in it. The drawer's content has a URL of its own
// (/alerts/{id}), and the list's URL with open={id} shows both. Every page works
// without script; script adds the drawer without reload, the keyboard and the
// live counters. There is no framework and nothing to build: static/ and
// templates/ are embedded as they lie here.
//
// # What people type is trusted little, what endpoints send not at all
//
// Paths, names of devices and users, command lines, even titles of alerts come
// from PCs that may be in other hands. All of it passes [printer.bdi] or
// [printer.fill]: control characters and direction marks become visible signs,
// long texts are cut with their length told, each text is isolated in <bdi>, and
// html/template escapes the rest. The content security policy allows no inline
// script or style.
//
// # Names tests and scripts may rely on
//
//	form#login, [name=user], [name=password]           sign in
//	form#password, [name=old], [name=new], [name=again] change of the password; forced after a one-time one
//	form#logout                                        sign out (inside #user-menu)
//	[data-lang=ja], [data-lang=en]                     buttons that switch the language (also on the login page)
//	[data-theme-choice=light|dark|auto]                buttons that switch the colours
//	html[lang], html[data-theme]                       the language and colours in force
//	nav#rail [data-nav=alerts|endpoints|audit|account] entries of the rail
//	#search                                            the search field; "/" puts the focus there
//	#tabs [data-tab=triage|mine|waiting|closed|all|tests]
//	#live-open-count                                   alerts to triage (rail); text is a number
//	#live-total-count                                  alerts not closed, in the strip
//	#live-level-critical ... -informational            the same by level
//	#live-oldest, #live-silent                         age of the oldest untriaged, silent endpoints
//	#live[data-state=on|off|connecting]                the live stream's state
//	#alert-list                                        the list; data-seq is the newest alert it has been told of
//	[data-alert-id][data-seq][data-rule][data-level][data-state]  one row; .is-new after it arrived by itself
//	#new-bar                                           "N new", shown instead of inserting while a row is selected
//	#toast                                             short notices (a test alert arrived, a change failed)
//	#drawer, #drawer [data-close]                      the drawer and the button that closes it
//	article.detail[data-detail-id]                     detail of an alert, in the drawer and on its page
//	#detail-title, #advice, #incidents, #facts, #evidence, #related, #log, #raw  its sections
//	form#triage: button[name=do][value=mine|waiting|reopen]; behind #noting > summary: [name=note], button[value=note]
//	form#close, behind #closing > summary: [name=reason], [name=note], button[name=do][value=close]
//	#endpoint-list [data-agent-id][data-health]        one endpoint
//	article.detail[data-detail-agent]                  detail of an endpoint; [data-sensor][data-sensor-state] its sensors
//	#audit-list [data-action]                          entries of the audit log
//	dialog#help                                        the keys, opened by "?"
//	a#csv                                              the current list as CSV
//
// A test alert bears data-test and the word テスト / Test.
package console
