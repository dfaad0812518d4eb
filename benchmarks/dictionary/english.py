"""Plain English, written by hand: words by frequency, phrases and short passages.

The built-in dictionary is made of it. It shares no text with the data that the benchmarks
measure, so the benchmarks show what unknown text costs. Words go from rare to frequent, because
zstd reaches the end of a dictionary with the shortest offsets.
"""

from __future__ import annotations

RARE = """
abandoned abroad abrupt absence absolutely absorb abstract academic accelerate accent acceptance
accident accommodate accompanied accomplished accordance accumulate accusation achievement acid
acknowledged acquired acquisition activate activist actor adapted addiction adequate adhere
adjacent adjustment admission admitted adolescent adoption advantages adventure advertising
aesthetic affection affiliate afford afraid agenda aggregate aggressive agriculture aircraft
airline alarm alcohol algorithm alien alike alive alliance allocated aloud alphabet aluminum
amateur amazing ambassador ambitious amendment ample amusing analogy ancestor ancient anger animal
anniversary annotation anonymous anticipated anxiety anybody apartment apologize apology appeal
appetite apple appliance applicable appointed appreciation apprehend arbitrary architecture arena
argue arise armed army arrangement array arrested arrival arrow artificial artist ashamed aside
aspect assault assemble assertion assess assessment asset assist associate assumption assure
asynchronous athlete atmosphere atomic attachment attempted attitude attorney attract attractive
attribute auction audience audit authentication authentic autonomous autumn avenue aviation awake
award aware awful awkward baby bachelor background backup backward bacteria badge baggage balance
balloon ballot bandwidth bankruptcy banner bargain barrel barrier baseball basement basket bathroom
battery battle beach beam bean bear beast beautiful bedroom beef behave behavior belief bell belong
belt bench beneath beneficial bicycle bike bind biography biology bird birth birthday bitter blade
blame blank blanket blessed blind blink block blood bloom blow board boat bold bomb bond bone bonus
boot border boring borrow boss bottle bottleneck bottom bounce boundary bowl boxes brain brake
branch brand brave bread breadth breakfast breath breeze brick bride bridge brief bright brilliant
broad broadcast broken bronze brother brown browser brush bubble bucket buddy buffer bug builder
bulk bullet burden bureau burn burst bury businessman butter button buyer bypass cabin cabinet
cable cake calculation calm camera camp campaign cancel cancer candidate candle capability capacity
capital captain capture carbon cardinal career carpet carriage carrier carrot cartoon cascade
casino castle casual catalog category cattle caution cave ceiling celebrate celebration celebrity
cell cemetery censor census ceremony chain chairman challenge chamber champion championship channel
chaos chapter character charity charm chart chase cheap cheat cheese chemical chemistry chest
chicken childhood chin chip chocolate choir cholesterol chronic chunk church cigarette cinema
circle circuit circulation circumstances citation citizen civil civilian civilization clarify
clarity classic classification classroom clause clay clever cliff climate climb clinic clinical
clip clock closet cloth clothing cloud club cluster coach coal coalition coast coat coffee
cognitive coin coincidence collapse collar colleague collision colony color colour column combat
combination comedy comfort comfortable command commander commentary commerce commission commodity
communicate communist companion comparable comparison compatible compensation competence
competition competitor compile complaint complement complexity compliance complicated component
composed compound comprehensive compress compromise compute conceal concede conceive concentration
conception concern concert concrete concurrent condemn conduct conference confess confidence
confidential configuration configure confined confirmation conflict confront confused confusion
congress connected conscious consensus consent consequently conservation conservative considerable
consistency consistent conspiracy constant constitution constraint construct consultant
consultation consumer consumption container contemporary contempt contest context continent
continuity continuous contractor contradiction contrary contrast contribute contribution
controversial controversy convenience convenient convention conventional convergence conversation
conversion convert convey convinced cookie cooking cooperation coordinate coordination copper
copyright coral core corn corner corporate corporation correction correlation correspond
corresponding corridor corrupted corruption costume cottage cotton council counsel counter
counterpart county coupon courage courtesy cousin coverage crack craft crash crazy cream creative
creature credentials crew cricket crime criminal crisis criterion critic critical criticism crop
crossing crowd crown crucial crude cruel cruise crystal cultural curiosity curious currency
curriculum curtain curve custody cycle daemon dairy dam damage dance danger dangerous daughter dawn
deadlock deadline dealer death debate debt debug decade deceive decimal declaration declare decline
decorated dedicated deduction deemed default defeat defect defend defendant defense deficit
definite degree delegate deliberately delicate delicious delight demand democracy democratic
demonstrate demonstration denial dense density deny department departure dependency deployment
deposit depression deprecated deprived depth deputy derived descend describing desert deserve
desirable desire desk desktop desperate despite destination destroy destruction detailed detection
deteriorate determination develop developer deviation device devil devote diagnosis diagram dialog
diamond diary dictate differ differential difficulty digit digital dignity dilemma dimension
diminish dinner diplomatic directory disability disadvantage disagree disappear disappointed
disaster discard discharge discipline disclose disclosure discount discourage discovery discretion
discrimination disease dish disk dismiss disorder dispatch display dispose disposition dispute
disrupt distance distant distinct distinction distinguish distributed distribution disturb dive
diverse diversity dividend divine division divorce dock doctrine documentation dollar domain
domestic dominant donate donation door dose double doubt dozen draft drag drain drama dramatic
drawer drawing dream dress drift drill drink drive drop drought drug drum dual due dumb dump
duplicate durable duration dust duty dynamic eager eagle earn earth earthquake ease east eastern
echo economic economy edge edition editor educate educational efficiency eight either elaborate
elastic elder election elective electoral electric electricity electronic elegant element elephant
elevator eligible eliminate elite else elsewhere embarrassed embassy embedded embrace emerge
emergency emission emotion emotional emperor emphasis empire empirical employ employee employer
employment empty enact encounter encourage encryption endless endorse endpoint endure enemy energy
enforce engage engagement engine engineering enhance enhanced enjoy enormous enrich enroll ensemble
enterprise entertain entertainment enthusiasm enthusiastic entire entitled entity entrance
entrepreneur envelope environmental envy epidemic episode equal equality equation equipment equity
equivalent era erect essay essence essential estate esteem estimate eternal ethical ethics ethnic
evaluate evaluation eventually everybody everyday evidence evident evil evolution evolve exact
exaggerate examination examine exceed excellence excellent exceptional excess exchange excited
excitement exciting exclude exclusive excuse execute execution executive exercise exhaust exhibit
exhibition exile existence exit exotic expand expansion expect expectation expedition expel
expenditure expense expensive experienced experiment experimental expertise expiration expire
explicit explode exploit exploration explore explosion export expose exposure express expression
extended extension extensive extent exterior external extinct extra extract extraordinary extreme
eye fabric facade facilitate facility factor factory faculty fade failure faint fairly faith fake
familiar fancy fantastic fantasy farm farmer fascinating fashion fast fatal fate father fatigue
fault favor favorite feather feature federal federation feedback feeling fellow female fence
fertile festival fetch fever fiber fiction fierce fifteen fifty fighting figure filter finance
fingerprint finite firewall firm fiscal fisherman fishing fitness fixture flag flame flash flat
flavor flee fleet flesh flexibility flexible flight float flood flour flow flower fluid flush focus
fog fold folder folk font foot footage football forbidden forecast foreign forest forever forget
forgive fork formal format formation former formula forth fortunate fortune forum forward fossil
foster foundation founder fraction fracture fragile fragment frame framework franchise fraud
freedom freeze freight frequency frequent fresh friction friend friendly friendship frightened
frozen fruit frustrated fuel fulfill functional fundamental fundraising funeral funny furniture
furthermore fusion gallery gambling game gang garage garbage garden garlic gasoline gateway gather
gauge gender gene generic generous genetic genius genre gentle gentleman genuine geography gesture
ghost giant gift girl glad glance glass glimpse global gloomy glory glove glue goal gold golden
golf goodness gorgeous governance governor grab grace grade gradual graduate grain grammar grand
grandfather grandmother grant graph graphic grasp grass grateful grave gravity great green greet
grief grip grocery gross ground grove growth guarantee guard guardian guess guest guidance
guideline guilty guitar gun habit habitat hair half halt hammer handbook handful handler handsome
hang happiness harassment hardware harm harmony harsh harvest hash hate hazard headache headline
headquarters heal healthy heart heat heaven heavy height hello helmet heritage hero hesitate hidden
hierarchy highlight highway hint hire historian historic hobby hockey holiday hollow holy honest
honey honor hook horizon horizontal horn horrible horror horse hospital host hostile hotel
household housing hover human humanity humble humidity humor hundred hungry hunt hurricane hurry
hurt husband hybrid hydrogen hygiene hypothesis icon ideal identical identification identifier
identity ideology ignorance ignore illegal illness illusion illustrate image imagination imagine
immediate immense immigrant immigration immune impact implement implementation implication imply
import impose impossible impress impression impressive imprisonment improvement impulse incentive
inch incident inclination inclusive income incomplete inconsistent incorporate incorrect incredible
increment incur independence independent index indicator indifferent indirect individual indoor
induce industrial industry inequality inevitable infant infection inference infinite inflation
influence influential informal infrastructure ingredient inhabitant inherent inherit inhibit
initialize initiative injection injured injury inner innocent innovation innovative inquiry insect
inspection inspector inspiration inspire installation instance instinct institute institution
instruction instructor instrument insufficient insurance insult intact integer integral integrate
integration integrity intellectual intelligence intelligent intended intense intensity intention
interaction interactive interior intermediate internal international internet interpret
interpretation interrupt interval intervention interview intimate introduction invade invalid
invasion invent invention inventory inverse invest investigate investigation investigator
investment investor invisible invitation invoke involvement iron irony irrelevant island isolate
isolation iteration jacket jail jewelry joint joke journal journalist journey joy judge judgment
juice junior jurisdiction jury justice justify keen kernel keyboard kick kidney kill kilometer king
kingdom kitchen knee knife knock label laboratory labor lack ladder lady lake lamp landscape lane
laptop laser latency latitude latter laugh laughter launch laundry lawn lawsuit lawyer layer layout
lazy leader leadership leaf league leak lean lease leather lecture legacy legend legislation
legislative legitimate leisure lemon lend length lens lesson lethal liability liable liberal
liberty library license lift lightning likelihood limitation linear linger linguistic link lion lip
liquid listener literal literally literary literature litter liver load loan lobby locate logic
logical lonely longitude loop loose lottery loud lovely lover loyal loyalty luck lucky lunch lung
luxury machinery magazine magic magnetic magnificent mainland mainstream maintain maintenance
majority male mall mammal mandate mandatory manifest manipulate manual manufacture manufacturer
manuscript map margin marine marker marketing marriage married mask massive master match mate
mathematical mathematics matrix mature maximum mayor meal meantime mechanic mechanical mechanism
medal media medication medicine medieval medium melt membership memorial memory mental mention menu
merchant mercy merely merge merit message metadata metal method metric middle migration mild
military milk mill mineral minimal minimize minimum minister ministry minor minority miracle mirror
misleading missile missing mission mistake mixture mobile mobility mode moderate modest
modification module moisture molecule momentum monetary monitor monkey monster mood moon moral
mortality mortgage mosquito mother motion motivate motivation motive motor mount mountain mouse
mouth movement movie multiple multiply murder muscle museum music musical musician mutual mystery
myth naked narrative narrow nasty nation native naval navigation navy neat necessity neck needle
negative neglect negotiate negotiation neighbor neighborhood nervous nest network neutral
nevertheless newspaper nice nightmare noise nominal nomination nonetheless norm normal north
northern nose notable notebook notification notion notorious novel nowhere nuclear numerous nurse
nursery nutrition oak obey object objection objective obligation oblige observation observe
observer obsolete obstacle obtain obvious occasion occasional occupation occupied occur ocean
offence offend offensive offering officer offline offset oil okay omit ongoing onion opera operand
operation operational operator opinion opponent opportunity oppose opposite opposition optical
optimal optimism optimistic optional oral orbit orchestra ordinary organ organic organization
organize orientation origin orphan otherwise outbreak outcome outdoor outlet outline outlook output
outrage outside outstanding oven overall overcome overflow overhead overlap overlook override
overseas oversight overview overwhelming owe owner ownership oxygen pace package packet pain
painful paint painting pair palace pale palm panel panic paper parade paragraph parallel parameter
parcel parent park parliament partial participant participate participation particle partition
partner partnership passage passenger passion passive passport password patch patent path pathetic
patience patient patrol pattern pause pavement payload peaceful peak peasant peculiar peer penalty
pencil pending penetrate pension perceive percentage perception perfect performance perhaps peril
periodic permanent permission permit persist persistent personality personnel perspective persuade
petition phase phenomenon philosophy phone photo photograph photographer phrase physical physician
physics piano pickup picture pile pill pilot pink pioneer pipe pipeline pitch pixel pizza placement
plain plaintiff plane planet plant plastic plate platform player playground plea pleasant please
pleasure pledge plenty plot plug plus pocket poem poet poetry pointer poison polar pole police
policy polite political politician politics poll pollution pool popularity population portable
portfolio portion portrait position possess possession postpone potato potential pottery poverty
powder powerful practical practitioner praise prayer precaution precedence precedent precious
precise precision predecessor predict prediction predominantly prefer preference prefix pregnancy
pregnant prejudice preliminary premier premise premium preparation prescribe prescription presence
presentation preserve presidency presidential pressure prestige presumably pretend pretty prevail
prevalence prevention previous prey priest primary prime primitive prince princess principal
principle print priority prison prisoner privacy private privilege prize probability probable probe
procedure proceed proceeding proceeds processor proclaim producer productive productivity
profession professional professor profile profit profound programming progress progressive prohibit
projection prominent promise promote promotion prompt pronounce proof propaganda property
proportion proposal prosecution prospect prosperity protect protection protein protest protocol
prototype proud province provision proximity proxy psychological psychology publication publicity
publisher publishing pull pulse pump punch punishment pupil purchase pure purple purpose pursue
pursuit push puzzle qualification qualified quality quantity quarter queen query queue quick quiet
quit quota quotation quote rabbit race racial racism radar radiation radical radio rage raid
railway rain rally random range rank rapid rare rarely rating ratio rational raw reaction reader
readily realistic reality realm rear reasonable reasoning rebel rebuild recall receipt receiver
recent reception recession recipe recipient reckon recognition recommendation reconstruction
recover recovery recruit recursive recycle redirect reduction redundant reference referendum
reflect reflection reform refuge refugee refund refusal refuse regard regime region regional
register registration regret regular regulate regulation regulatory rehabilitation reign reinforce
reject rejection relate relation relationship relative relax relevance relevant reliability
reliable relief relieve religion religious reluctant remain remainder remark remarkable remedy
remember remind reminder remote removal render rent repair repeat repeatedly replacement replica
reply reporter repository representation representative reproduce reproduction republic reputation
requirement rescue research reservation reserve reside residence resident residential resign resist
resistance resolution resolve resort resource respectively respond response responsibility
responsible restart restaurant restoration restore restraint restrict restriction resume retail
retain retire retirement retreat retrieval retrieve retry reveal revenge revenue reverse revision
revolution revolutionary reward rhythm rice rich ride ridiculous rifle rigid ring riot rise risk
ritual rival river road robot robust rocket role roll romance romantic roof root rope rough roughly
route router routine royal rubber rubbish ruin rumor runtime rural rush sacred sacrifice safe
safety sail saint salad salary salt sample sanction sand satellite satisfaction satisfy sauce save
scale scandal scare scatter scenario scene schedule schema scheme scholar scholarship scientific
scientist scope score scratch scream screen script scroll sculpture seal season seat secondary
secret secretary sector secular secure security segment seize seldom select selection semantic
semester seminar senate senator senior sensation sensible sensitive sensitivity sensor sentence
sentiment separate separation sequence serial series serious servant server session settle
settlement seven severe sexual shade shadow shake shallow shame shape share shareholder sharp shed
sheep sheer sheet shelf shell shelter shift shine ship shirt shock shoe shoot shop shopping shore
shortage shot shoulder shout shower shrink shut shuttle shy sibling sick sidebar siege sight sign
signal signature significance significant silence silent silk silly silver similar similarity
simulate simulation simultaneously sin sing singer sink sister site situation skeleton sketch ski
skill skin skip sky slave sleep slice slide slight slip slot slow small smart smell smile smoke
smooth snake snapshot snow soap soccer social society sofa soft software soil solar soldier sole
solely solid solo solution solve somebody somehow somewhat somewhere sophisticated sorry sort soul
sound soup source south southern sovereignty space spare spatial speaker specialist species
specific specification specimen spectacular spectrum speculation speech speed spell spending sphere
spin spirit spiritual splendid split spokesman sponsor spontaneous sport spot spread spring square
squeeze stability stable stack stadium staff stage stair stake stance standalone standard star
stark startup state statement static station statistical statistics statue status statute steady
steal steam steel steep stem stereotype stick stiff stimulate stimulus stock stomach stone storage
storm straight straightforward strain strange stranger strategic strategy stream street strength
stress stretch strict strike string strip stroke structural structure struggle student studio stuff
stupid style subject subjective submit subscription subsequent subset subsidy substance substantial
substitute substring subtle suburb succeed success successful succession successor sudden suffer
sufficient suffix sugar suicide suit suitable suite summarize summary summer summit sunlight super
superior supervision supervisor supplement supplier supply supporter supposed suppress supreme
surface surgeon surgery surplus surprise surprising surrender surround survey survival survive
survivor suspect suspend suspicion suspicious sustain sustainable swear sweep sweet swim swing
switch symbol symbolic symmetry sympathetic sympathy symptom sync syndrome synchronize syntax
synthesis system systematic table tackle tactic tail talent tank target task taste taxpayer teacher
team tear technical technique technological technology teenager telephone television temperature
template temple temporarily temporary temptation tenant tendency tennis tension tent terminal
terminate terminology terrain terrible territory terror terrorism terrorist testimony text textbook
texture thankful theater theme theology theoretical theory therapist therapy thesis thick thin
thirteen thirty thorough thousand thread threat threaten threshold throat throughput throughout
throw thumb thunder ticket tide tight timber timeout timestamp tiny tissue title tobacco token
tolerance tolerate tomato tone tongue tool topic tornado torture toss total touch tough tour
tourism tourist tournament tower toxic toy trace trade trademark tradition traditional traffic
tragedy tragic trail trailer trait transaction transcript transfer transform transformation transit
transition translation transmission transmit transparency transparent transport transportation trap
trash trauma travel traveler treasure treatment treaty tree tremendous trend trial triangle tribe
tribute trick trigger trillion trim trip triumph troop tropical trouble truck truly trunk trust
truth tube tuition tunnel tuple turnover tutorial twelve twenty twice twin twist typical typically
ugly ultimate ultimately unable uncertain uncertainty uncle undergo undergraduate underlying
undermine undertake unemployment unexpected unfair unfortunate unhappy uniform unify union unique
unit unity universal universe university unknown unlike unlikely unnecessary unprecedented unusual
unwanted upcoming upgrade uphold upload upper upset urban urge urgent usage username utility
utilize utterly vacancy vacation vacuum vague valid validation valley valuable van vanish variable
variance variation variety various vary vast vector vegetable vehicle vein vendor venture venue
verb verbal verdict verification verify versatile verse version vertical vessel veteran viable
vibrant vice victim victory video viewer viewpoint village violate violation violence violent viral
virtual virtually virtue virus visible vision visitor visual vital vitamin vocabulary voice
volatile volcano voltage volume voluntary volunteer vote voter voyage vulnerability vulnerable wage
wagon waist wake wander warehouse warfare warm warning warrant warranty wash waste watch wave weak
weakness wealth wealthy weapon wear weather web website wedding weekend weekly weight weird welcome
welfare western wheat wheel whenever whereas wherever whip whisper wholesale wicked wide widely
widespread widow width wife wild wilderness wildlife willing wilson wind window wine wing winner
winter wipe wire wireless wisdom wise wish withdraw withdrawal witness wonder wonderful wood wooden
wool workaround workflow workplace workshop worldwide worm worry worse worst worth worthy wound
wrap wrist writer wrong yard yearly yellow yesterday yield young youth zero zone
"""

COMMON = """
ability above accepted access accessible according accordingly account accounts accurate achieved
across action actions active activities activity actual actually added adding addition additional
additionally address addresses adjusted administration administrator admin adopted advance advanced
advantage advice affected affecting again against agency agent agents agreed agreement ahead
allowed allowing allows almost alone along already alternative alternatively although always among
amount amounts analysis analyze analyzed announced annual another answer answered answers anyone
anything anyway apart apparently appears appeared appearance append application applications
applied applies apply applying approach approaches appropriate approval approved approximately area
areas argument arguments around arrived article articles asked asking assigned assignment
assistance assistant associated association assume assumed assuming attached attack attempt
attempts attend attention attributes august author authorities authority authorized automatic
automatically automated available average avoid avoided away back backend based basic basically
basis became because become becomes becoming before begin beginning begins behaviour behind being
believe believed below benefit benefits beside besides better between beyond binary blocked body
book books born both bought breaking bring bringing brings brought budget build building buildings
built business businesses busy buying calculate calculated calendar call callback called calling
calls came cannot card cards care carefully carried carry carrying case cases cash caught cause
caused causes causing center central centre century certain certainly certificate chance change
changed changes changing characters charge charged charges check checked checking checks child
children choice choices choose chosen cities city claim claimed claims class classes clean clear
cleared clearly click client clients close closed closely closing code collect collected collecting
collection college combined come comes coming comment comments commercial commit committed
committee common commonly communication communications communities community company companies
compare compared comparing complete completed completely completing completion complex comply
computed computer computing concept concepts concerned concerning conclusion condition conditions
confident confirm confirmed connect connecting connection connections consequence consequences
consider consideration considered considering consists console construction consumed contact
contacts contain contained containing contains content contents continue continued continues
continuing contract contracts control controlled controls converted convince cookies copied copies
copy corrected correct correctly cost costs could count countries country couple course court cover
covered covering covers create created creates creating creation credit culture current currently
customer customers customize daily data database databases date dated dates days dead deal dealing
dealt december decide decided decision decisions declared decrease deep deeply defaults define
defined defines defining definitely definition definitions delay delayed delays delete deleted
deleting delivered delivering delivery depend dependent depending depends deployed describe
described describes description descriptions design designed designing despite detail details
detect detected determine determined determines developed developers developing development
developments devices died difference differences different differently difficult difficulties
direct directed direction directions directly director disabled disappeared discover discovered
discuss discussed discussing discussion discussions displayed divided doctor document documented
documents doing done down download downloaded downloading draw drawn driven driver drivers dropped
during each earlier early earned easier easily east easy edit edited editing education effect
effective effectively effects efficient efficiently effort efforts elected elements eleven
eliminated email emails employees enable enabled enables enabling encoded encoding encountered
encouraged ended ending ends engineer engineers english enough ensure ensures ensuring enter
entered entering entirely entries entry environment equally error errors especially essentially
establish established establishment estimated european evaluated even evening event events ever
every everyone everything everywhere exactly example examples except exception exceptions executed
executes executing existed existing exist exists expected expects expenses experience experiences
expert experts expired explain explained explaining explains explanation explicitly exported
expressed expressions extend extending extends extremely face faced facilities facing fact factors
facts fail failed failing fails failures fair fall fallen falling falls false family families
famous fear features february feel feels fell felt field fields fifth fight figures file filename
files filled fill final finally financial find finding findings finds fine finger finish finished
finishing fire first fitted five fixed fixes fixing floor focused follow followed following follows
food force forced forces forget form formatted formatting formed forms forty forwarded found four
fourth free freely frequently friday friends from front full fully function functionality functions
fund funding funds further future gained gain games gathered gave general generally generate
generated generates generating generation getting give given gives giving glad goals goes going
gone good goods government governments gradually granted greater greatest greatly group groups grow
growing grown guide guidelines half hand handle handled handles handling hands happen happened
happening happens happy hard hardly having head headers heading health hear heard hearing heavily
held help helped helpful helping helps hence here herself hidden high higher highest highly himself
historical history hits hold holder holders holding holds home hope hoped hoping hour hours house
however huge idea ideas identified identifies identify identifying ignored images immediately
implemented implementations implements implied importance important importantly imported importing
impossible improve improved improvements improving inactive include included includes including
incoming increase increased increases increasing increasingly indeed indexes indicate indicated
indicates indicating individuals influenced inform information informed inherited initial initially
initialized initiated input inputs inserted insert inside insight insights inspect install
installed installing instances instead institutions instructions insure integrated intend interest
interested interesting interests interface interfaces internally interpreted introduce introduced
introducing invited invoice invoices involve involved involves involving isolated issue issued
issues issuing item items itself january joined join joining july june just keep keeping keeps kept
keyword keywords kind kinds knew know knowing knowledge known knows labels land language languages
large largely larger largest last lasted late later latest laws lead leading leads learn learned
learning least leave leaves leaving left legal less letter letters letting level levels lies life
light like liked likely limit limited limits line lines linked links list listed listening listing
lists literature little live lived lives living loaded loading local located location locations
locked lock login logs long longer look looked looking looks lose losing loss losses lost love
lower lowest machine machines made mail main mainly maintained maintaining maintains major make
makes making manage managed management manager managers managing manner manually many march marked
market markets matched matches matching material materials mathematical matter matters maximum
maybe mean meaning meanings means meant meanwhile measure measured measurement measures medical
meet meeting meetings member members mentioned merged messages methods might miles million millions
mind minute minutes missed mixed model models modern modified modify modifying modules moment
monday money month monthly months more moreover morning most mostly move moved moves moving much
multiple must myself named namely names national natural naturally nature near nearby nearly
necessarily necessary need needed needing needs neither networks never next night nine node nodes
none nonexistent normally note noted notes nothing notice noticed notify notified november number
numbers objects objectives observed obtained obtaining obviously occurred occurrence occurs october
offered offers office officers official officially officials often older once ones online only onto
open opened opening opens operate operated operates operating operations operators opinions
opportunities option options oral order ordered orders organisation organised organizations
organized original originally other others ought ours ourselves outcomes output outputs overall
overridden owned owners packages page pages paid painted parameters parents parse parsed parsing
part particular particularly parties partly partners parts party pass passed passes passing past
paths patients patterns paying payment payments peace people percent perfectly perform performed
performing performs period periods permissions permitted person personal personally persons
physically pick picked piece pieces place placed places plan planned planning plans plants play
played playing plays please point pointed pointing points policies poor popular position positions
positive possibility possible possibly post posted posts potentially pounds power powers practice
practices preferably preferred prepare prepared preparing present presented presents preserved
president press pretty prevent prevented prevents previously price prices pricing primarily
principles printed printing prints prior private probably problem problems proceed procedures
process processed processes processing produce produced produces producing product production
products program programs project projects promised proper properly properties proposed protected
prove proved proven provide provided provider providers provides providing public publicly publish
published pulled purchased purposes pushed putting qualities quarter question questions queries
quickly quietly quite quoted raise raised raises raising ranges rate rates rather reach reached
reaches reaching reactions read readers reading reads ready real realize realized really reason
reasons receive received receives receiving recently recognize recognized recommend recommended
recommendations record recorded recording records reduce reduced reduces reducing refer references
referred referring refers reflected reflects refused regarded regarding regardless regards regions
registered regularly regulations rejected related relations relationships relatively release
released releases releasing remained remaining remains remembered remove removed removes removing
rendered repeated replace replaced replaces replacing reported reporting reports represent
represented representing represents reproduced request requested requesting requests require
required requirements requires requiring researchers reserved reset resolved resolving resources
respect respond responded responds responses responsibilities rest restored restricted result
resulted resulting results retrieved retrieving return returned returning returns revealed review
reviewed reviewer reviewing reviews revised right rights rise rising role roles room rooms rows
rule rules running runs safely said sale sales same samples saturday saved saves saving saying says
scheduled school schools science scores search searched searches searching second seconds section
sections securely seeing seek seeking seem seemed seems seen selected selecting self sell selling
send sending sends sense sensible sent sentences separated separately separator september sequences
series seriously serve served serves service services serving sets setting settings settled seven
several shall shared shares sharing shell shipment shipped shipping short shorter shortly should
show showed showing shown shows side sides signed significantly simple simpler simplest simply
since single sites sitting situations size sizes skills skipped slightly slowly smaller smallest
social sold solutions solved some someone something sometimes soon sorted sought sounds sources
spaces speak speaking special specially specifically specified specifies specify specifying spent
spoke spoken stages stand standards standing stands start started starting starts stated statements
states stating stay stayed step steps still stood stop stopped stopping stops store stored stores
stories storing story strings strong stronger strongly structures struck students studied studies
study studying subjects submitted subsequently success successfully such suddenly suffered suggest
suggested suggesting suggestion suggestions suggests suitable sunday supplied support supported
supporting supports suppose sure surely surprised surrounding switched symbols systems tables take
taken takes taking talk talked talking tasks taught teaching teams techniques technologies tell
telling tells tend tends term terms test tested testing tests text than thank thanks that their
theirs them themselves then theories there thereby therefore thereof these they thing things think
thinking third this those though thought thoughts threads three through throughout thrown thursday
thus tickets ties time timed times today together told tomorrow tonight took tools topics totally
toward towards town towns tracked track tracking trained training transactions transferred
transformed translate translated transmitted treated tried trial triggered tries true trusted
trying tuesday turn turned turning turns type types typical under undergoing understand
understanding understood unfortunately united units unless until updated updates updating upon
upper usable used useful user users uses using usual usually valid validate validated valuable
value values variables varied varies various verified versions very versus via view viewed views
violated visit visited voices wait waited waiting walk walked walking wall want wanted wanting
wants warnings warranties watched watching water ways website wednesday week weeks well went were
west whatever when where whereby whether which while white whole whom whose widely wife will
willing window windows winning wish within without woman women wondering word words work worked
worker workers working works world worldwide worry worth would wrapped wrapper write writer writes
writing written wrote year years young your yours yourself
"""

# Short words with what most often follows them: matches begin at four bytes or so.
PHRASES = """
a few of the|a good idea|a large number of|a lot of|a set of|a variety of|a series of|a part of the
according to the|across the|after that|after the|against the|all of the|all the|all these|allow you
along with|also be|among the|an example of|an important|and a|and all|and are|and can|and have
and if you|and in the|and is|and it is|and not|and other|and so on|and that|and the|and then
and this|and to the|and was|and we|and with|and you can|any of the|any other|are a|are also|are in
are not|are the|are used to|around the|as a|as a result|as an|as if|as it|as long as|as part of
as soon as|as such|as the|as well as|as you|as possible|at a|at all|at any time|at least
at the end of the|at the same time|at this point|away from|back to the|based on the|be a|be able to
be in|be made|be the|be used to|because it|because of the|because the|because they|been a|been in
before the|being a|between the|both the|but also|but also the|but it is|but not|but the
but there is|but they|by a|by an|by default|by that|by the|by this|by using|can also be
can be used to|can do|can have|can only be|can you|could be|could have|could not be
depending on the|did not|do not|do it|do this|do you|does not|due to the|during the|each of the
each other|either the|end of the|even if|even though|ever since|every time|for a|for all|for an
for any|for each|for example, the|for it|for more|for that|for the first time|for them|for this
for use in|for which|for you|for your|from a|from an|from that|from the|from their|from this
from your|get the|going to be|had a|had been|had not|had the|has a|has been|has no|has not been
has the|have a|have any|have been|have not|have the|have to be|have to|he had|he has|he said|he was
her own|his own|how can I|how many|how much|how the|how to|I am|I have|I think|I want to|I was
I will|I would|if a|if an|if any|if it|if necessary|if not|if that|if the|if there is|if they
if this|if we|if you have|if you want|if you are|in a|in all|in an|in any|in case of|in fact
in front of|in his|in its|in many|in more|in my|in one of|in order to|in other|in our|in some
in such|in terms of|in that|in the case of|in the same|in the first|in the|in their|in these
in this case|in this way|in which|in your|instead of|into account|into a|into the|is a|is also
is an|is at|is available|is being|is by|is for|is going to|is in|is it|is known|is more|is no
is not|is now|is of|is on|is one of the|is only|is set|is still|is that|is the|is this|is to
is used to|is very|it also|it as|it can be|it could|it does not|it from|it had|it has been|it in
it is not|it may be|it must|it should|it to|it was|it will be|it would be|its own|just as|kind of
last year|led to|less than|let me|let us|like a|like the|likely to|look at the|look for|made a
made by|made it|made up of|make a|make it|make sure that|make the|many of|may also|may be|may have
may not be|might be|more and more|more than one|most of the|much more|must be|must have|must not
my own|need to be|need to|next to|no longer|no more|not a|not all|not be|not been|not have|not in
not only|not the|not to|not yet|number of|of a|of all|of an|of any|of course|of each|of her|of his
of it|of its|of many|of more than|of one|of other|of our|of some|of such|of that|of the same|of the
of their|of these|of this|of those|of two|of us|of which|of your|of what|off the|on a|on all|on an
on any|on its|on one|on our|on that|on the other hand|on the|on their|on this|on top of|on what
on your|once the|one and|one or more|one of the|one that|only a|only be|only if|only one|only the
or a|or an|or any|or in|or not|or other|or the|or to|other than|our own|out of the|over a|over the
part of the|per day|prior to|rather than|rest of the|responsible for|result in|same as|same time
seems to be|set of|set to|she had|she was|should also|should be|should have|should not be
similar to|since the|so far|so it|so that the|so the|so they|so we|so you can|some of the|sort of
still be|such a|such as the|support for|take care of|take the|than a|than one|than that|than the
that a|that all|that are|that can be|that had|that has been|that have|that he|that if|that in
that is|that it is|that it|that may|that must|that no|that should|that the|that there is|that they
that this|that was|that we|that were|that will|that would|that you can|that you|the act|the age of
the aim|the art|the best|the day|the end|the fact that|the first|the following|the last|the most
the new|the next|the old|the one|the only|the other|the own|the right|the same|the two
the use of the|the way|the whole|their own|them in|them to|then the|there are|there is a
there is no|there was|there were|they are|they can|they had|they have|they were|they will
this can be|this has|this is a|this is the|this is|this may|this means that|this one|this was
this will|those who|through a|through the|to a|to all|to an|to any|to be able|to be|to become
to do so|to do|to get|to give|to go|to have|to help|to his|to it|to its|to keep|to know|to make
to me|to my|to one|to other|to our|to say|to see|to set|to some|to take|to that|to the|to their
to them|to this|to try|to us|to use the|to use|to what|to which|to you|to your|together with
too much|two of|two or more|under the|unless you|until the|up the|up to date|up to|upon the|use a
use of|use the|used by|used for|used in|used to|very much|was a|was also|was an|was in|was it
was made|was no|was not|was the|was to|we are|we can|we had|we have|we need to|we should|we will
well as|were in|were not|were the|what is|what are|what the|when a|when it|when the|when they
when you|where the|where you|whether or not|whether the|which are|which can be|which has|which have
which in|which is|which it|which means|which the|which was|which were|which will|while the|who are
who had|who has|who have|who is|who was|will also|will be|will have|will not be|with a|with all
with an|with any|with each|with his|with it|with its|with no|with one|with other|with our
with respect to|with that|with the|with their|with them|with this|with which|with your|within a
within the|without a|without any|without the|would be|would have|would like to|would not|would you
you are|you can|you could|you do not|you have to|you have|you may|you might|you must|you need to
you should|you to|you use|you want to|you will|your own
"""

OPENINGS = """
A|According to|Additional|Add|After the|Again,|All of the|Also,|Although|An|And the|Another|Any
Are you|As a result,|As of|As the|Ask|At the|Based on|Because|Before|Best regards,|Both|But
By default,|Can you|Change|Check|Create|Could you|Dear|Default|Do not|Does|During|Each|Either|Error
Even|Every|Exactly|Finally,|Find|First,|Follow|For example,|For more|For the|From the|Further|Get
Given|Good|Great|Has|Have|He|Hello|Help|Her|Hi|His|How can I|How do I|However,|I am|I have|I will
I would|I'll|I'm|If the|If you|Important|In addition,|In general,|In order to|In particular,|In the
Instead,|Is it|Is the|It can be|It has|It is|It seems|It was|Its|Just|Keep|Last|Let me know if
Let us|List|Look|Make sure|Many|Maybe|Most|Most of the|My|Never|New|Next,|No|None|Not|Note that|Now
Of course,|On the|Once|One of the|Only|Open|Or|Other|Otherwise,|Our|Over|Overall,|People|Perhaps
Please|Provide|Read|Remember|Results|Return|Returns|Run|Second,|See|Send|Set|She|Should|Show
Similarly,|Since|So|Some|Sometimes|Specify|Start|Still|Such|Summary|Sure,|Take|Tell|Thank you
Thanks for|That is|That|The first|The following|The most|The new|The next|The other|The same
The second|The two|Their|Then|There are|There is|Therefore,|These are|They are|They|Third,
This can be|This is a|This is|This means|This will|This|Those|Through|Thus,|To|Today|Try|Two|Under
Unfortunately,|Until|Update|Use|Used|User|Using|Very|Was|We are|We can|We have|We|Well,|What is
What|When the|When|Where|Whether|Which|While|Who|Why|Will|With the|Within|Without|Would you|Write
Yes,|Yet|You are|You can|You|Your
"""

PASSAGES = """
Thank you for your message. I have checked your account and found that the payment was received on
Monday, but the order has not been shipped yet. I will let you know as soon as there is any news.
Please let me know if you have any questions or if there is anything else I can help you with. I'm
sorry for the inconvenience. We don't have that information at the moment, and I can't say when
it'll be available. You're welcome to try again later; that's all we can do for now, and it doesn't
take long. There isn't a simple answer, because it depends on what you'd like to do with it. Here
is a short summary of what we know so far. The main reason for this is that most of the people who
use the service did not read the terms and conditions. On the other hand, there are a number of
things that could be done in order to improve the situation, for example by making it easier to
find. In the first half of the year, the company reported an increase of more than 20 percent
compared with the same period last year, as well as higher costs. In recent years, the government
has been under pressure to take action. At the beginning of the 19th century, it was one of the
most important cities in the world, known for its long history. It is located in the north of the
country. The function returns the value of the given argument, or None if it is not found. Raises
an error if the name is invalid, the file does not exist, or the process is not allowed to read it.
The default value is used when no other value is specified. This method must be called before the
object is used. The following options are available: the first argument is a list of strings, and
the second is an optional number that specifies how many of them should be returned. Changed in
version 2.0. For more information about this, see the documentation. If this is set to true, the
result will be the same. This software is provided without warranty of any kind, either express or
implied, including but not limited to the implied warranties of fitness for a particular purpose.
In no event shall the owner be liable for any damages arising out of the use of this work. You may
copy and distribute it, provided that you keep all of the notices that refer to this license. All
rights reserved. Based on the search results, I found the following information. Let's go through
it step by step. First of all, we need to make sure that all of the required data has been
collected. After that, the results can be compared with each other. To do this, we should take a
closer look at how the system works, what kind of changes would be necessary, and whether or not
they are worth the effort. In conclusion, I would recommend the second option, since it has the
advantage of being much easier to understand, although it may take a little more time. It might
also be a good idea to ask the team what they think about it. What do you think? Would you like me
to go ahead and create a new version? You are a helpful assistant. Answer the user's question as
well as you can, using only the context provided below. If you don't know the answer, just say that
you don't know. Do not make up an answer. Use the tools available to you when needed, and think
step by step before you respond.
"""
