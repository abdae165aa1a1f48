"""The sentences of errors that people meet, as the floors below raise them, in the page's language.

Raised in English, they are found here by their pattern; :func:`labeler.web.words.N_` marks them for the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labeler.said import pattern_of
from labeler.said import said as find_and_say
from labeler.web.words import N_, _, setting_named, word

# %(name)s stands for what varies.
SENTENCES = (
    N_("Please sign in"),
    N_("Only an admin may do this"),
    N_("Only who started the run or an admin may do this"),
    N_("Only an admin of the instance may name an embedding model: the server fetches and loads it"),
    N_("There is no such project"),
    N_("There is no such page"),
    N_("This address does not allow that method"),
    N_("This is too large to be sent here"),
    N_("Something went wrong inside Labeler; the log says what"),
    N_("This page is too old or was not opened here; load it again and repeat"),
    N_(
        "This server does not answer to that host name; start it with --public-url and the address as people open it, "
        "and behind a proxy pass the name on (nginx: proxy_set_header Host $http_host)"
    ),
    N_("The request comes from another site; open Labeler at %(url)s"),
    N_("The request comes from another site; behind a proxy, start Labeler with --public-url"),
    N_("The disk of %(path)s is full; free some space and try again. Nothing was lost"),
    N_("The disk is full; free some space and try again. Nothing was lost"),
    N_("%(path)s cannot be written (%(reason)s); check the folder's permissions"),
    N_("%(path)s is a link to another place and is not used; replace it by a folder"),
    N_("The store %(path)s is open read-only; nothing was changed"),
    N_("The name or the password is wrong"),
    N_("Too many failed sign-ins; wait five minutes and try again"),
    N_("This sign-in link was used already or has expired; ask for a new one, or restart the server"),
    N_("The old password is wrong"),
    N_("A password has at least 10 characters; a few words make a good one"),
    N_("A password has at most 1000 characters"),
    N_("A person needs a name of 1 to 60 printable characters"),
    N_("The name %(name)s mixes letters of alphabets that look alike; write each word in one"),
    N_("There is already a reviewer called %(name)s"),
    N_("The account of %(name)s is closed; an admin opens it again under People"),
    N_("You cannot change the role of your own account or close it; ask another admin"),
    N_("An instance needs an admin who can sign in; make another account one first"),
    N_("This is the project's last admin; make another member its admin first"),
    N_("This record is no longer yours: its time ran out, and %(name)s has opened it"),
    N_("This record is no longer yours: it was decided after you opened it"),
    N_("This form cannot be read; load the page again"),
    N_("No pending record has a score yet, so the oldest come first; start a run to suggest all of them"),
    N_("The suggestions here have no score, so the oldest come first; choose a backend that scores labels"),
    N_("Fewer than half of the pending records have a score, and the others come last; start a run"),
    N_("No pending record has a second opinion yet, so the oldest come first; start a run to suggest all of them"),
    N_("The suggestions here have no second opinion, so the oldest come first; approve more, or suggest by a model"),
    N_("Fewer than half of the pending records have a second opinion, and the others come last; start a run"),
    N_("No second opinion differs from its suggestion, so the oldest come first"),
    N_("No text was typed to look for, so the oldest come first"),
    N_("A project needs a name of 1 to 80 printable characters"),
    N_("There is already a project called %(name)s; choose another name"),
    N_("There is no run number %(number)s"),
    N_("There is no replay number %(number)s"),
    N_("These are %(n)s combinations; a replay has at most %(most)s"),
    N_("No label of %(task)s is approved yet, so there is nothing to replay"),
    N_("The task %(task)s was changed since; start the replay again"),
    N_("Replay %(number)s has %(n)s arms, and none with the number %(arm)s"),
    N_("Only an admin may start a replay that costs money; choose free backends"),
    N_("Choose one of the settings"),
    N_("Guidelines are drafted and judged by a model; choose a backend that asks one for the task"),
    N_(
        "Drafts are made from suggestions of a model that people corrected, and there are too few; label more of what "
        "a model suggested"
    ),
    N_("%(n)s approvals can judge a draft, and %(least)s are needed; label more first"),
    N_("No draft of the guidelines can be used; the reasons stand with each"),
    N_("The draft is the text that stands"),
    N_("The draft quotes a review (%(text)s); a rule has to hold for others"),
    N_("Replay %(number)s judges drafts of guidelines; adopt one that gains"),
    N_("Replay %(replay)s has no draft with the number %(number)s"),
    N_("Draft %(number)s is not shown to gain, so it is not adopted"),
    N_("A search is started from its own form: drafts are made from the corrections of now"),
    N_("There is no import number %(number)s in this project"),
    N_("There is no export number %(number)s in this project"),
    N_("There is no record number %(number)s"),
    N_("The text of this record has changed since you opened it; open it again and read it"),
    N_("Run %(number)s has already ended"),
    N_("Run %(number)s is not paused"),
    N_("The budget of %(amount)s is reached; raise it and resume"),
    N_("Nothing to do: every pending record has such a suggestion already (see the option --again)"),
    N_("The openai backend needs a model id; set it for the task or for the instance"),
    N_("No OpenAI key: set OPENAI_API_KEY, or openai_base_url to a server of your own."),
    N_("Nothing to export: no annotation of %(task)s is approved; approve some records first"),
    N_("Nothing to export: no annotation of %(task)s is approved and fits the filters"),
    N_("Nothing to export: %(task)s has no suggestions; make some first"),
    N_("The label %(name)s appears twice in the label schema"),
    N_("%(n)s approvals have labels that would be gone: %(labels)s; say what becomes of each"),
    N_("The label %(name)s is answered for twice; say one thing of it"),
    N_("There is no label %(name)s; there are: %(labels)s"),
    N_("%(old)s cannot become %(new)s; there are: %(labels)s"),
    N_("Somebody else changed the labels of this task meanwhile; look at them again"),
    N_("The labels of this task were changed this very moment; open the record again"),
    N_("A label of this decision was removed from the task meanwhile; open the record again and choose another"),
    N_("The labels of the task were changed; resume the run to ask by the new ones"),
    N_("There is no version %(number)s of the settings of %(task)s"),
    N_("A label of this value was removed, and its records were put back to pending"),
    N_("The label %(name)s has an unknown parent %(parent)s"),
    N_("The label %(name)s makes a third level; a tree has two"),
    N_("A label schema needs at least one label"),
    N_("There is no column %(name)s; there are: %(columns)s"),
    N_("%(setting)s is %(value)s; it must lie between %(low)s and %(high)s"),
    N_("%(setting)s is %(value)s; a number is needed"),
    N_("The project %(project)s has no task %(task)s"),
    N_("No task %(name)s; loaded: %(names)s"),
    N_("There is no account number %(number)s"),
    N_("openai_base_url must be an http or https address; example: http://127.0.0.1:8000/v1"),
    N_("cancelled"),
    N_("being filled"),
    N_("Its records are being gathered; if that was interrupted, resume the run with those it has, or cancel it"),
    N_("The records of run %(number)s are still being gathered; wait, or cancel it"),
    N_("Its records are in a batch of run %(number)s; it continues when the batch is back"),
    # Of backends
    N_("There is no approved example yet; approve a few records first"),
    N_("The nearest examples do not help with this record"),
    N_("The %(name)s needs at least %(count)s approved examples, of two labels or more"),
    N_("The %(name)s labels choices only, not %(kind)s"),
    N_("The free suggestion of a text needs at least %(count)s approved examples"),
    N_("The free suggestion of a text is being learned"),
    N_("What can be cut out of the text helps less than a blank form; a language model would help"),
    N_("No piece of the text is like what was approved"),
    N_("The record has no vector yet"),
    N_("No connection to %(address)s (%(reason)s); check the address, the network and that the server runs."),
    N_("The account has no credit left; add credit or raise its limit, then resume the run (%(status)s)."),
    N_("The server limits the rate; the call is worth another try later, with fewer at once (%(status)s)."),
    N_("The server does not accept the key; check OPENAI_API_KEY or openai_api_key (%(status)s)."),
    N_("No model %(model)s at %(address)s; check the model id, and that base_url is right (%(status)s)."),
    N_("The address does not take chat completions; set base_url to where the API begins (/v1) (%(status)s)."),
    N_("The server failed; the call is worth another try (%(status)s)."),
    N_("The prompt is longer than the model can read; show fewer examples or use another model (%(status)s)."),
    N_("The server refuses this prompt; see what it says, and label this record by hand (%(status)s)."),
    # Of servers as they are
    N_("This one call is more than the server's limit takes; show fewer examples, or raise the limit (%(status)s)."),
    N_("The server's moderation refuses this prompt; label this record by hand (%(status)s)."),
    N_("The server does not write answers that long; lower max_tokens to %(n)s, then resume the run (%(status)s)."),
    N_("The server does not write answers that long; lower max_tokens, then resume the run (%(status)s)."),
    N_("The server behind %(address)s does not answer, or its model is not ready; see that it runs (%(status)s)."),
    N_(
        "No complete answer within %(n)s s; raise timeout_seconds, or lower concurrency where the server "
        "answers few calls at once."
    ),
    N_("%(model)s gives no answer that can be used. %(why)s."),
    N_("Held by the server's rate limit until %(time)s (UTC)"),
    N_("%(why)s The run continues by itself when the server answers."),
    N_("The first %(n)s records all ended the same way, without a label; fix the cause, then resume the run: %(why)s"),
    N_("The model thinks aloud, and where its answer begins cannot be told; use a reasoning parser on the server"),
    N_("The answer has words around its JSON, and the task wants the JSON alone"),
    N_("The answer was cut off at the limit of %(n)s tokens (max_tokens)"),
    N_("The answer was cut off, because it is longer than any label of this task"),
    N_("The model was still thinking where its answer should have ended"),
    N_("The server's content filter blocked the answer"),
    N_(
        "The answer is empty: the model's text came as reasoning_content; start the server without its "
        "reasoning parser, or turn thinking off"
    ),
    N_("The answer is empty: the model called a tool instead of answering"),
    N_(
        "Azure takes no batches under an address with /deployments/; set openai_base_url to "
        "https://NAME.openai.azure.com/openai/v1 and the model id to the deployment, or choose the executor "
        "local"
    ),
    # Of settings and runs
    N_("%(setting)s is %(value)s; allowed are: %(names)s"),
    N_("%(setting)s is %(value)s; it must be of the kind %(kind)s"),
    N_("The backend %(backend)s with %(model)s has no setting %(setting)s; clear it, or choose another"),
    N_("The backend %(backend)s has no setting %(setting)s; clear it, or choose another"),
    N_("A cascade asks for one task at a time; clear the setting joint, or set mode to direct"),
    N_(
        "hidden_columns and blind_columns both name %(name)s; take it out of one of them: what is hidden is shown on "
        "no record"
    ),
    N_("sent_columns names %(n)s columns; at most %(most)s can be sent beside a text"),
    N_("The tasks %(a)s and %(b)s cannot be asked together: one labels reviews, the other products"),
    N_("The project's budget of %(amount)s is reached; raise it in the settings and resume"),
    N_("The project's budget of %(amount)s a day is reached; resume tomorrow (UTC), or raise it"),
    N_(
        "The price of %(model)s is unknown, so no budget (%(amount)s) can be kept; add the model to prices.json in the "
        "instance folder and resume, or start a run without a budget"
    ),
    N_("The transformers backend needs a model id (a hub id or a folder); set it for the task or the instance"),
    N_("The OpenAI key contains a space, a line end or a character that no key has; copy it again"),
    N_("openai_base_url must not contain a user or password; put the key into openai_api_key; example: %(address)s"),
    N_(
        "openai_base_url is another server, and the key that is stored is not its own; give openai_api_key with it, or "
        "remove the key first"
    ),
    N_("openai_base_url is an address of this machine's cloud, which is no model server; example: %(address)s"),
    N_("The package %(name)s is not installed; install it with: %(command)s"),
    N_("The backend %(backend)s needs no test"),
    N_("No model %(name)s; the settings name: %(names)s"),
    N_("The model %(model)s is being tested; wait until that has ended"),
    N_("There is no such test any more; start it again"),
    # Of the page itself
    N_("Choose a file first"),
    N_("Choose the column that holds the review text"),
    N_("Choose at least one task"),
    N_("Choose a project and a person"),
    N_(
        "This kind of file is not read; send CSV, TSV, JSON Lines, JSON, Excel (.xlsx) or Parquet, or one of them "
        "with .gz behind its name"
    ),
    N_("There is no such upload any more; send the file again"),
    N_("%(setting)s is %(value)s; it must be a whole number from %(low)s to %(high)s"),
    N_("Only an admin may start a run that costs money; choose a free backend"),
    N_("There is no such file in this export"),
    # Of taking back
    N_("This record was removed meanwhile"),
    N_("What this belongs to was removed meanwhile; look again"),
    N_("Import %(number)s is still going on; wait until it has ended"),
    N_("Import %(number)s was removed before"),
    N_("Run %(number)s is asking about these records now; pause or cancel it, and remove them then"),
    N_("%(n)s more records were decided meanwhile; check again what would be removed"),
    N_("The product %(name)s is made of its reviews; remove these to remove it"),
    N_("Give %(least)s to %(most)s characters, such as an e-mail address or a customer's id"),
    N_("The project %(name)s is archived; bring it back first"),
    N_("The project was archived"),
    N_("Type the name of the project to remove it"),
    N_("Look first at what would be removed"),
    N_("guidelines and settings of tasks"),
    N_("names and settings of projects"),
    N_("labels of other records"),
    N_("suggestions for other records"),
    N_("answers of models on other records"),
    N_("runs"),
    N_("reports of imports"),
    N_("manifests of exports"),
    N_("events"),
    N_("This project has no task; add one in its settings"),
    N_("%(color)s is not a color; write it like #2e7d32"),
    # Of files
    N_("The file is empty"),
    N_("%(name)s is not a file"),
    N_("%(name)s cannot be opened: %(reason)s"),
    N_("%(name)s cannot be read: %(reason)s"),
    N_("%(name)s cannot be read, because it is %(got)s: %(why)s"),
    N_("an old Excel workbook (.xls), or a workbook with a password"),
    N_("a web page (HTML or XML); shops often give it the name .xls"),
    N_("a gzip file"),
    N_("a zip archive"),
    N_("a damaged zip archive"),
    N_("a PDF"),
    N_("a picture (PNG)"),
    N_("a picture (JPEG)"),
    N_("an SQLite database"),
    N_("an RTF document"),
    N_("a binary Excel workbook (.xlsb)"),
    N_("a Word document"),
    N_("a PowerPoint presentation"),
    N_("an OpenDocument file"),
    N_("open it in Excel or a like program and save it as .xlsx or as CSV UTF-8"),
    N_("give it a name that ends in .gz"),
    N_("unpack it first"),
    N_("copy the file again"),
    N_("it was packed twice; unpack it once"),
    N_("an Excel workbook"),
    N_("a Parquet file"),
    N_("%(name)s is not %(what)s but looks like text; give it the name of its format, like .csv"),
    N_("%(name)s is not %(kind)s but JSON; give it a name that ends in .json or .jsonl"),
    N_("%(name)s is not %(kind)s but %(got)s; let its name end in .%(end)s"),
    N_("%(name)s is not JSON: it begins with %(text)s, not with a list or an object"),
    N_(
        "%(name)s is one JSON object, not records; write the list of records itself: [{...}, {...}], or one object a "
        "line"
    ),
    N_("%(name)s is larger than %(size)s after unpacking; split it into smaller files"),
    N_("%(name)s is larger than %(size)s; split it into smaller files"),
    N_("%(name)s unpacks to more than %(size)s; split it into smaller files"),
    N_(
        "%(name)s unpacks to more than %(n)s times its size; reviews do not look like that, so it was not read. If you "
        "trust it, unpack it yourself"
    ),
    N_("%(name)s unpacks to more than %(size)s or %(n)s times its size; save it as CSV UTF-8"),
    N_("%(name)s is cut off: the packed data has no end; copy the file again"),
    N_("%(name)s is damaged: its packed data cannot be read; copy the file again"),
    N_("%(name)s is damaged: two of its parts have one name"),
    N_("%(name)s is damaged: row %(n)s cannot be read (%(reason)s)"),
    N_("%(name)s is damaged or no workbook: %(reason)s"),
    N_("%(name)s is damaged or no Parquet file: %(reason)s"),
    N_("The name %(name)s ends in .gz but the content is not packed; remove .gz from the name"),
    N_("The sheet %(sheet)s of %(name)s is damaged: %(reason)s"),
    N_("The sheet %(sheet)s is empty"),
    N_("There is no sheet %(sheet)s; the workbook has: %(names)s"),
    N_("The workbook has no sheet with cells that can be seen"),
    N_("Row %(n)s of the sheet %(sheet)s cannot be read: %(why)s"),
    N_("A sheet shows more than %(size)s of text; save it as CSV UTF-8"),
    N_(
        "A sheet spans %(rows)s rows and %(columns)s columns, more than %(n)s cells; delete cells far from the table, "
        "or save it as CSV UTF-8"
    ),
    N_("The encoding %(name)s is unknown; use one of utf-8, cp949, euc-kr, utf-16, cp1252, shift_jis"),
    N_("Files in the encoding %(name)s are not read; save the file as UTF-8"),
    N_("The file is in UTF-32; save it as UTF-8"),
    N_("The file is not text in any encoding that is known here; save it as UTF-8"),
    N_("The delimiter %(name)s cannot be used; give one character, or tab, or none"),
    N_("The quotes in %(name)s are broken on too many lines (now at line %(n)s); check the delimiter and the quotes"),
    N_("The header (line %(n)s) cannot be read: %(why)s"),
    N_("The column name %(name)s appears twice in the header (columns %(a)s and %(b)s); rename one of them"),
    N_("The column name %(name)s appears twice in %(file)s; rename one of them"),
    N_("%(row)s is not a row of column names; write a number such as 5, or 1-2 for two rows"),
    N_("Row %(row)s cannot hold the column names: it is empty or not among the first rows"),
    N_("The column %(column)s holds objects, not texts"),
    N_(
        "The numbers in the column %(column)s have more digits than a spreadsheet keeps, so it rounded them, and "
        "different ones are the same now; take the file from where it comes, with that column as text"
    ),
    N_("No task %(name)s in this project; there are: %(names)s"),
    N_("Nothing was imported: %(n)s row(s) would be refused. The first is row %(row)s: %(why)s"),
    # Questions about files
    N_("The encoding is not clear: as %(a)s the file reads %(x)s, as %(b)s %(y)s"),
    N_("The delimiter is not clear: %(one)s and %(other)s both divide the rows into %(n)s cells"),
    N_("The first row looks like data, not like column names: it has the cell %(cell)s. Are there no column names?"),
    N_("The first row may hold the column names or already a review: %(cells)s"),
    N_("Row %(n)s may hold the column names: %(cells)s. It may also be the first review"),
    N_(
        "No row of column names was found above row %(n)s, which looks like data: it has the cell %(cell)s. Name the "
        "columns, or say that the file has no names"
    ),
    N_("Several sheets of the workbook look like reviews: %(names)s. Import them one by one"),
    N_("Which column holds the review? There are: %(columns)s"),
    N_("Several columns could hold the review: %(columns)s"),
    N_("The column %(column)s holds objects, not texts. Which part is the review? There are: %(columns)s"),
    # Notes about files
    N_("The encoding was guessed as %(name)s; if letters look wrong, give the right one"),
    N_("The file was read as an export of %(name)s"),
    N_("Everything above the column names (row %(row)s) was skipped"),
    N_("The column names of the rows %(a)s and %(b)s were joined"),
    N_("The column names are repeated in the middle, %(n)s time(s); these rows were skipped"),
    N_("%(n)s row(s) end before the last column; missing cells count as empty"),
    N_("The first line was taken as the name of the only column: %(name)s"),
    N_("The sheet %(sheet)s was read; there are also: %(names)s"),
    N_(
        "The numbers in the column %(column)s have more digits than a spreadsheet keeps, so it has rounded them; store "
        "the column as text there"
    ),
    N_("The column %(column)s is not used as the id: it is empty or the same in several rows"),
    N_(
        "The column %(column)s is empty in %(n)s of the first %(all)s rows; if its cells were merged, fill them down "
        "and import the file then"
    ),
    # Rows that an import refused, and labels
    N_("row has %(n)s cells, header has %(columns)s"),
    N_("row has 1 cell, header has %(columns)s"),
    N_("row has %(n)s cells, the first row has %(columns)s"),
    N_("row has 1 cell, the first row has %(columns)s"),
    N_("a NUL character at byte %(n)s of the line"),
    N_("a NUL character at byte %(n)s of the record"),
    N_("byte %(n)s of the line (0x%(byte)s) is not %(encoding)s"),
    N_("byte %(n)s of the record (0x%(byte)s) is not %(encoding)s"),
    N_("%(why)s (line %(n)s)"),
    N_("a quote inside a quoted cell is not doubled"),
    N_("a quote is opened in this row and never closed"),
    N_("a quote is opened in this row and not closed before the next quote, on line %(n)s"),
    N_("the row is longer than %(size)s; a quote is opened in it and perhaps never closed"),
    N_("the row is longer than %(size)s"),
    N_("the row is too long"),
    N_("the line is longer than %(size)s"),
    N_("the line is too long"),
    N_("the record is longer than %(size)s"),
    N_("the cell is longer than %(size)s"),
    N_("the text is not UTF-8"),
    N_("the value cannot be read: %(reason)s"),
    N_("a value cannot be read: %(reason)s"),
    N_("not a JSON object but %(got)s"),
    N_("a string"),
    N_("a list"),
    N_("a number"),
    N_("an object"),
    N_("true or false"),
    N_("Not JSON: a comma without a record"),
    N_("the list is not closed: the file is cut off, or a bracket or quote is missing here"),
    N_("there is text behind the end of the list; it was not read"),
    N_("The text is %(got)s, not a text: %(value)s"),
    N_("The text holds nothing but invisible characters"),
    N_("The row holds totals, not a review"),
    N_("The column %(column)s holds an object or a list here, which cannot be an id or a product"),
    N_("The number %(value)s in column %(column)s was rounded by a spreadsheet; store it as text there"),
    N_("The id %(id)s… is longer than 200 characters"),
    N_("%(value)s is not JSON: %(why)s"),
    N_("People disagree about it in the file: %(values)s"),
    N_("the label went to the equal record %(id)s, which had none"),
    N_("the equal record %(id)s has another, %(value)s"),
    N_("the record has another, %(value)s"),
    N_("the equal record %(id)s was rejected"),
    N_("the record was rejected"),
    N_("the queue of %(task)s lacks this record"),
    N_("The text is empty"),
    N_("The text has %(n)s characters; at most %(most)s are taken"),
    N_("The id in column %(column)s is empty"),
    N_("the id %(id)s is taken by another text; change one of them"),
    N_("the id %(id)s is that of a product, whose text is made from its reviews; import those instead"),
    N_("the label was left out: %(why)s"),
    N_("the task %(task)s labels products, and this row is a review"),
    N_("the task %(task)s labels reviews, and this row is a product"),
    N_("%(name)s is not one of the labels: %(labels)s"),
    N_("%(name)s is not the label %(label)s: it differs in case or white space"),
    # What an export left out, or warns of
    N_("The record has no text"),
    N_("The annotation has no value"),
    N_("The label schema of the task no longer allows the value; label these records again"),
    N_("Text and answer together are longer than the limit"),
    N_("Equal texts carry different labels; decide these records again"),
    N_("Equal texts with equal labels occur more than once"),
    N_("Somebody decided these records again while the export ran; export again to have them"),
    N_("Near-duplicates carry different labels; look at these records again"),
    N_("The text holds control tokens of language models, which a trainer may take for real ones"),
    N_(
        "Products or near-duplicates that came later tie these records to records of another split; they stay out, so "
        "that no held-out record has a twin in the training set"
    ),
    N_(
        "Earlier exports put these records, or what belongs to them, into a split that has no share now; give it a "
        "share, or split all records again"
    ),
    N_(
        "%(split)s has no rows, and no file was written for it: there are too few rows, products and near-duplicates "
        "that belong together are too large, or earlier exports had other shares"
    ),
    N_(
        "%(split)s has %(share)s of the rows, not %(wanted)s: there are too few rows, products and near-duplicates "
        "that belong together are too large, or earlier exports had other shares"
    ),
    N_("The shares %(a)s, %(b)s and %(c)s add up to %(sum)s; they must add up to 1"),
    N_("Nothing to export: every approved annotation of %(task)s is left out. %(why)s"),
    # Of local weights
    N_(
        "The prompt has %(n)s tokens and its answer up to %(most)s, but the model reads %(context)s in all; show fewer "
        "examples, lower max_tokens, or take a model with a longer context."
    ),
    N_("Every prompt is read as a whole before its answer is written, which is slower: %(why)s."),
    N_("Labels are scored one by one, which is slower: %(why)s."),
    N_("in a trial the quicker way changed the answer"),
    N_("this model does not allow it (%(why)s)"),
    N_("its forward takes no cache"),
    N_("it has layers of the kind %(names)s"),
    N_("its attention %(name)s takes no mask of ours"),
    N_(
        "a trial with transformers %(version)s failed (%(reason)s); if this model was quicker before, install the "
        "versions of constraints.txt"
    ),
    N_("transformers %(version)s does not list the control tokens of a model; install the versions of constraints.txt"),
    N_("The local model failed with an unexpected %(error)s; see the log."),
    N_("The GPU stopped with an error; restart Labeler, and see the log for details."),
    N_("The task %(task)s has no closed list of labels to score; set answering to auto or generated."),
    N_("The scores of the task %(task)s do not single out a label."),
    N_("The model's chat template leaves out a message; choose another model"),
    N_("The model's chat template refuses the messages: %(reason)s"),
    N_("The model %(model)s is gated; accept its licence on the hub, and set HF_TOKEN to your token"),
    N_("The hub has no model %(model)s, or it is private; check the model id, or set HF_TOKEN"),
    N_(
        "The model %(model)s is not in the local cache and the hub cannot be reached; connect once, or give a folder "
        "with the weights"
    ),
    N_("The model %(model)s has no weights in safetensors, and a pickle is not read; take another model"),
    N_("The model %(model)s comes with its own code, which is never run; use a model that transformers supports"),
    N_("The model %(model)s needs a package that is not installed: %(reason)s"),
    N_("The model %(model)s could not be loaded: %(reason)s; check its folder or choose another"),
    N_(
        "The model %(model)s does not fit into the memory of %(device)s; set quantization to nf4, take a smaller "
        "model, or set device to cpu"
    ),
    N_(
        "Memory is too small for a single prompt (%(reason)s); show fewer examples, set quantization to nf4, take a "
        "smaller model, or set device to cpu"
    ),
    N_("device is %(device)s, but torch finds no NVIDIA or AMD GPU on this machine; set device to auto or cpu"),
    N_("device is %(device)s, but torch finds no Apple GPU on this machine; set device to auto or cpu"),
    N_(
        "quantization is %(name)s, but %(file)s is a GGUF file, which brings its own; set quantization to auto, or "
        "load the model from its safetensors"
    ),
    N_("The transformers backend needs a model id: a hub id or a folder; set it for the task"),
    N_("gguf_file is %(file)s; give the name of a file inside the model's folder"),
    N_("There is no model folder %(folder)s; give a folder with config.json, or a hub id"),
    N_("There is no file %(file)s in %(folder)s; GGUF files there: %(names)s"),
    N_("The folder %(folder)s has no config.json, so it holds no model; set gguf_file to %(file)s"),
    N_(
        "The folder %(folder)s has no config.json, so it holds no model; give the folder that holds config.json and "
        "the weights"
    ),
    N_(
        "The folder %(folder)s holds no safetensors, and other weights are not read, because a pickle can run any "
        "code; save the model with safetensors"
    ),
    N_("The adapter %(folder)s has no %(file)s; give the folder of a LoRA that peft has saved"),
    N_("adapter_config.json in %(folder)s has no peft_type; save the LoRA again"),
    N_("The adapter %(folder)s is of the kind %(kind)s; only LORA is read"),
    N_("An adapter needs the package peft; install it with: pip install peft"),
    N_("The package %(package)s is not installed; install it with: %(command)s"),
    # Of servers
    N_("The certificate of %(address)s is not trusted (%(reason)s); install its authority on this machine."),
    N_("The server's answer %(why)s; try again, and check that base_url ends where its API begins (/v1)."),
    N_("The server's answer %(why)s; check that the server at base_url has files and batches."),
    N_("is not JSON"),
    N_("is not a JSON object"),
    N_("has no choices"),
    N_("has no choices (%(reason)s)"),
    N_("names no id"),
    N_("The answer is longer than %(n)s MB; lower max_tokens or check the server."),
    N_("The call failed with an unexpected %(error)s; see the log."),
    N_("A package is missing (%(reason)s)."),
    N_(
        "The package openai %(version)s does not work as Labeler needs it (%(reason)s); install the versions of "
        "constraints.txt"
    ),
    N_("The prompt holds what JSON cannot carry (a lone surrogate, NaN); clean the text of the record."),
    N_("The model %(model)s refuses the setting %(setting)s; clear it in the settings of the task."),
    N_("Only one label out of a closed list has scores; set the answers of this task to auto or generated."),
    N_(
        "The model %(model)s gives no log probabilities, so its labels have no scores; set the answers of this task to "
        "auto or generated, or use another model."
    ),
    N_("The server does not take this kind of structured output; set structured to auto (%(status)s)."),
    N_("timeout is %(value)s; use a number of seconds above 0"),
    N_("No model id; enter the name of the model on the server"),
    N_("openai_base_url is not an address; example: %(address)s"),
    N_("openai_base_url must not contain # or ?, other than ?api-version= of Azure; example: %(address)s"),
    N_("openai_base_url contains a space or a control character; example: %(address)s"),
    N_("%(setting)s must be text, not %(kind)s"),
    N_("The capability %(name)s cannot be %(value)s; test the connection again"),
    N_("The capabilities of a server must be an object, not %(value)s"),
    # Of batches
    N_("The server does not have this file or batch, or has none at all (HTTP %(status)s)."),
    N_("The file is longer than Labeler reads at once; start batches of fewer calls."),
    N_("The file or batch did not arrive in time; try again later."),
    N_("The id of a file or batch holds a character that no id has."),
    N_("The provider refused the batch: %(why)s"),
    N_("The provider has not ended the batch %(name)s in a day"),
    N_("Not answered in the batch: %(why)s"),
    N_("no reason was given"),
    N_("no reason given"),
    N_("never sent"),
    N_("could not be sent"),
    N_("%(why)s, %(n)s of %(total)s answered"),
    # Of tasks, plugins and the work of the background
    N_("The plugin %(name)s failed: %(why)s"),
    N_("The task %(task)s cannot build a prompt: %(reason)s"),
    N_("The parser of the task %(task)s failed: %(reason)s"),
    N_("%(error)s in the task or backend: %(reason)s"),
    N_("The backend %(backend)s has no batches; choose the executor local, or the backend openai"),
    N_("No backend %(name)s; loaded: %(names)s"),
    N_("No executor %(name)s; loaded: %(names)s"),
    N_("No retriever %(name)s; loaded: %(names)s"),
    N_("No embedder %(name)s; loaded: %(names)s"),
    N_("The %(name)s was fitted on labels that the task no longer has"),
    N_(
        "On %(n)s approved records this model agrees %(model)s, the free suggestion %(free)s, both together %(both)s "
        "[%(low)s, %(high)s]; %(what)s"
    ),
    N_("both together are used"),
    N_("the free suggestion is used"),
    N_("the model is used"),
    N_(
        "The model adds nothing to the free suggestion, so the rest was not asked. Resume to ask it all the same: its "
        "answers then stand beside the free suggestions"
    ),
    N_("A stored calibration cannot be read (%(reason)s); fit it again"),
    N_("A stored calibration has the kind %(kind)s and the temperature %(value)s; fit it again"),
    N_("%(file)s: cannot be read (%(reason)s); create it or remove the setting"),
    N_("%(file)s cannot be read: %(reason)s"),
    N_("%(file)s cannot be written: %(reason)s"),
    N_("%(file)s must hold one JSON object"),
    N_("It was stopped halfway; import the file again to continue"),
    N_("%(place)s is not a field; use %(names)s"),
    N_("%(place)s must be an object that maps model ids to prices, not %(value)s"),
    N_("%(place)s must be an object with %(names)s, not %(value)s"),
    N_("%(place)s must be a whole number of tokens above 0, not %(value)s"),
    N_("%(place)s must be a share of the price, above 0 and at most 1, not %(value)s"),
    N_("%(place)s must be a number of US dollars per million tokens, 0 or more, not %(value)s"),
    N_('%(place)s must be a date like "2027-01-31", not %(value)s'),
    # Answers that cannot be read, and labels that no task allows
    N_("The answer was cut off at the token limit"),
    N_("The model refused to answer"),
    N_("The answer is empty"),
    N_("The answer has %(n)s characters"),
    N_("Not JSON at line %(line)s, column %(column)s: %(why)s"),
    N_("Expecting value"),
    N_("Extra data"),
    N_("Expecting ',' delimiter"),
    N_("Expecting ':' delimiter"),
    N_("Expecting property name enclosed in double quotes"),
    N_("Unterminated string starting at"),
    N_("Invalid control character at"),
    N_("Invalid \\escape"),
    N_("JSON nested deeper than %(n)s levels"),
    N_("JSON nested deeper than %(n)s levels at line %(line)s"),
    N_("The key %(name)s appears twice in one object"),
    N_("%(name)s is not a JSON number"),
    N_("A number of %(n)s digits is too long (at most %(most)s)"),
    N_("The number %(value)s is too large"),
    N_("A lone surrogate (\\ud800 to \\udfff without its pair) is not text"),
    N_("Not UTF-8 at line %(line)s, byte %(byte)s (%(value)s)"),
    N_("null"),
    N_("a boolean (%(value)s)"),
    N_("a number (%(value)s)"),
    N_("a text (%(value)s)"),
    N_("a list (%(value)s)"),
    N_("an object (%(value)s)"),
    N_("Expected one object with the only key %(name)s, got %(got)s"),
    N_("Expected the name of a label, got %(got)s"),
    N_("Expected a list of labels, got %(got)s"),
    N_("%(name)s is a heading; choose one of its subcategories"),
    N_("At least %(n)s label(s) must be chosen, got %(got)s"),
    N_("At most %(n)s label(s) may be chosen, got %(got)s"),
    N_("%(name)s cannot be chosen together with other labels"),
    N_("Expected an object with %(names)s, got %(got)s"),
    N_("%(name)s is not one of the parts: %(names)s"),
    N_("The part %(name)s is missing"),
    N_("Expected a whole number, got %(got)s"),
    N_("%(value)s is not on the scale from %(low)s to %(high)s"),
    N_("A part cannot be called %(title)s; take a name of letters, digits, _ and spaces, at most 40"),
    N_("A comparison has the labels %(names)s; only their titles may be changed"),
    N_("Expected a number, got %(got)s"),
    N_("%(value)s is too large a number"),
    N_("%(value)s is less than %(low)s, the least there may be"),
    N_("%(value)s is more than %(high)s, the most there may be"),
    N_("%(value)s is not a multiple of the step %(step)s"),
    N_("Expected a date as text, got %(got)s"),
    N_("%(value)s is no day; write it as in 2026-05-01"),
    N_("Expected a list of items in order, got %(got)s"),
    N_("%(item)s is missing in the order"),
    N_("%(item)s stands in the order twice"),
    N_("Expected a list of keywords, got %(got)s"),
    N_("At most %(n)s keywords may be given, got %(got)s"),
    N_("The keyword %(name)s… is longer than %(n)s characters"),
    N_("Expected a keyword as text, got %(got)s"),
    N_("A keyword is empty"),
    N_("The keyword %(name)s cannot be placed without its text"),
    N_("The keyword %(name)s overlaps another keyword"),
    N_("The keyword %(name)s is not in the text word for word"),
    N_("Expected a list of spans, got %(got)s"),
    N_("Expected a span with label and text, got %(got)s"),
    N_("A span has the keys %(names)s, got %(got)s"),
    N_("A span needs whole numbers as start and end, and its text"),
    N_("A span is empty"),
    N_("A span from %(start)s to %(end)s cannot hold a text of %(n)s characters"),
    N_("The text from %(start)s to %(end)s is %(a)s, not %(b)s"),
    N_("%(name)s overlaps another one"),
    N_("Expected a text, got %(got)s"),
    N_("The text has %(n)s characters; at least %(least)s are needed"),
    N_("The text has %(n)s characters; at most %(most)s are allowed"),
    N_("A label needs a name: %(value)s"),
    N_("The %(key)s of label %(name)s must map languages to texts"),
    N_("The color and the parent of label %(name)s must be texts"),
    N_("The exclusive label %(name)s is not in the label schema"),
    N_("There is no file %(name)s"),
    # The part of a value that has several; last, since it fits many
    N_("%(name)s: %(why)s"),
)
# Holes that hold a name of the code, and what the page calls it.
_TITLED: Mapping[str, Callable[[str], str]] = {"setting": setting_named, "backend": word, "split": word}
_PATTERNS = [(sentence, pattern_of(sentence)) for sentence in SENTENCES]


def said(sentence: str) -> str:
    """Return an error's sentence in the page's language; one that is not in the catalogue stays English."""
    return find_and_say(sentence, _PATTERNS, _say)


def _say(known: str, found: Mapping[str, str]) -> str:
    titled = {hole: name(found[hole]) for hole, name in _TITLED.items() if hole in found}
    return str(_(known, **{**found, **titled}))
